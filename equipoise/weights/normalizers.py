"""Normalisers rewrite the layers of a network once, when it is built: callables net -> net.

Initial weights are set before a normaliser is applied: `nn.init` on a parametrised weight does nothing.
`remove` folds a normaliser into plain weights for inference. SAN heads are left alone: they learn the direction and
the length of their vector separately.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from typing import ClassVar, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from equipoise.core.types import component

from .matrices import (
    SCALED,
    WEIGHTED,
    as_matrix,
    effective_weight,
    output_axis,
    squared_singular_values,
    weighted_layers,
)
from .spectral import DividedBySigma

__all__ = ["ExactSpectralNorm", "FrobeniusNorm", "NoNormalizer", "Normalizer", "SpectralNorm", "WeightNorm", "remove"]


M = TypeVar("M", bound=nn.Module)


class Normalizer(ABC):
    """How the weights of a network are parametrised.

    bounds: it bounds the spectral norm of each layer, and with that D's Lipschitz constant.
    """

    bounds: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, net: M) -> M:
        """Rewrite the layers of `net` in place. Returns it."""


@component
class NoNormalizer(Normalizer):
    """Leaves every weight as it is."""

    def __call__(self, net: M) -> M:
        return net


@component
class SpectralNorm(Normalizer):
    """W / σ(W), σ the largest singular value, on every weighted layer (Miyato et al. 2018, alg. 1).

    σ is estimated by power iteration. A convolution's weight is read as (C_out, C_in·kh·kw). The singular vectors
    are buffers, warm-started, and move once per training-mode forward.

    iterations: power iterations per training-mode forward.
    skip: names or patterns (``body.0``, ``head.*``) of layers to leave alone.
    """

    bounds: ClassVar[bool] = True

    iterations: int = Field(default=1, ge=1)
    skip: tuple[str, ...] = ()

    def __call__(self, net: M) -> M:
        """Raises ValueError if a pattern of `skip` matches no layer."""
        for layer in chosen(net, self, self.skip):
            without_gain(layer)
            divided = DividedBySigma(effective_weight(layer), self.iterations, output_axis(layer))
            parametrize.register_parametrization(layer, "weight", divided)
        return net


@component
class ExactSpectralNorm(Normalizer):
    """W / σ(W) with the exact σ at every forward: the reference that `SpectralNorm` approaches.

    Its gradient is exact too. For small networks: every forward decomposes every weight (`matrices`).

    skip: names or patterns of layers to leave alone.
    """

    bounds: ClassVar[bool] = True

    skip: tuple[str, ...] = ()

    def __call__(self, net: M) -> M:
        """Raises ValueError if a pattern of `skip` matches no layer."""
        for layer in chosen(net, self, self.skip):
            without_gain(layer)
            norm = partial(spectral_norm, axis=output_axis(layer))
            parametrize.register_parametrization(layer, "weight", Quotient(norm))
        return net


@component
class FrobeniusNorm(Normalizer):
    """W / ‖W‖_F, a weight of unit length, on every weighted layer.

    ‖W‖_F² is the sum of all squared singular values, so σ(W / ‖W‖_F) <= 1, and 1 only for a W of rank one (Miyato
    et al. 2018, sec. 3).

    skip: names or patterns of layers to leave alone.
    """

    bounds: ClassVar[bool] = True

    skip: tuple[str, ...] = ()

    def __call__(self, net: M) -> M:
        """Raises ValueError if a pattern of `skip` matches no layer."""
        for layer in chosen(net, self, self.skip):
            without_gain(layer)
            parametrize.register_parametrization(layer, "weight", Quotient(torch.linalg.vector_norm))
        return net


@component
class WeightNorm(Normalizer):
    """W = g v / ‖v‖ for each output channel, g and v learned, on every weighted layer (Salimans & Kingma 2016, eq. 2).

    g starts as ‖v‖, so outputs stay the same. g is free, so nothing is bounded. An embedding has a g per row.

    skip: names or patterns of layers to leave alone.
    """

    skip: tuple[str, ...] = ()

    def __call__(self, net: M) -> M:
        """Raises ValueError if a pattern of `skip` matches no layer."""
        for layer in chosen(net, self, self.skip):
            parametrizations.weight_norm(layer, dim=output_axis(layer))
        return net


def without_gain(layer: nn.Module) -> None:
    """Set the constant of an equalised layer to 1: W / norm(W) is to be used as it is."""
    if isinstance(layer, SCALED):
        layer.gain = 1.0


class Quotient(nn.Module):
    """The parametrisation W -> W / norm(W)."""

    def __init__(self, norm: Callable[[Tensor], Tensor]):
        super().__init__()
        self.norm = norm

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self.norm(weight).to(weight.dtype)


def spectral_norm(weight: Tensor, axis: int) -> Tensor:
    """σ of a weight whose outputs `axis` counts, ()."""
    return squared_singular_values(as_matrix(weight, axis))[-1].sqrt()


def chosen(net: nn.Module, normalizer: Normalizer, skip: tuple[str, ...]) -> list[nn.Module]:
    """The weighted layers of `net` that no pattern of `skip` matches.

    Raises:
        ValueError: if a pattern matches no layer at all, SAN heads' included.
    """
    names = [name for name, module in net.named_modules() if isinstance(module, WEIGHTED)]
    for pattern in skip:
        if not any(fnmatch(name, pattern) for name in names):
            raise ValueError(
                f"{type(normalizer).__name__}(skip=...): {pattern!r} matches no layer; known: {', '.join(names)}"
            )
    return [layer for name, layer in weighted_layers(net) if not any(fnmatch(name, pattern) for pattern in skip)]


def remove(net: nn.Module) -> nn.Module:
    """Fold every parametrisation of `net` into plain weights, in place: same outputs as in eval mode, less work.

    Copies of `net` stay as they are. Weights become new parameters.
    """
    for module in list(net.modules()):
        if not parametrize.is_parametrized(module):
            continue
        wrapped = module.parametrizations
        assert isinstance(wrapped, nn.ModuleDict)
        wrapped.eval()  # a training-mode read of the weight would move the singular vectors
        weights = {name: getattr(module, name).detach().clone() for name in wrapped}
        trained = {name: any(p.requires_grad for p in held.parameters()) for name, held in wrapped.items()}
        # Not `parametrize.remove_parametrizations`: it deletes the weight's property from the class that torch has made
        # for this module. A deep copy shares that class with its original.
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight, requires_grad=trained[name]))
    return net
