"""Normalisers rewrite the layers of a network once, when it is built: callables net -> None.

Initial weights are set before a normaliser is applied: `nn.init` on a parametrised weight does nothing.
`remove` folds a normaliser away for inference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fnmatch import fnmatch

from pydantic import Field
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from .heads import SANHead
from .types import component

__all__ = ["NoNormalizer", "Normalizer", "SpectralNorm", "remove", "weighted_layers"]

WEIGHTED = (
    nn.Linear,
    nn.Embedding,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


class Normalizer(ABC):
    """How the weights of a network are parametrised."""

    @abstractmethod
    def __call__(self, net: nn.Module) -> None:
        """Rewrite the layers of `net` in place."""


def weighted_layers(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules of the linear, convolutional and embedding layers, outside SAN heads.

    A SAN head normalises its own weights, so no normaliser or constraint may touch them.
    """
    inside = {part for head in net.modules() if isinstance(head, SANHead) for part in head.modules()}
    return ((n, m) for n, m in net.named_modules() if isinstance(m, WEIGHTED) and m not in inside)


@component
class NoNormalizer(Normalizer):
    """Leaves every weight as it is."""

    def __call__(self, net: nn.Module) -> None:
        pass


@component
class SpectralNorm(Normalizer):
    """W / σ(W), σ the largest singular value, on every weighted layer (Miyato et al. 2018, alg. 1).

    σ is estimated by power iteration: a convolution's weight is read as (C_out, C_in·kh·kw), its singular
    vectors are buffers, warm-started, and move once per training-mode forward.

    iterations: power iterations per training-mode forward.
    skip: names or patterns (``body.0``, ``head.*``) of layers to leave alone.
    """

    iterations: int = Field(default=1, ge=1)
    skip: tuple[str, ...] = ()

    def __call__(self, net: nn.Module) -> None:
        """Raises ValueError if a pattern of `skip` matches no layer."""
        known = [name for name, module in net.named_modules() if isinstance(module, WEIGHTED)]
        for pattern in self.skip:
            if not any(fnmatch(name, pattern) for name in known):
                raise ValueError(f"SpectralNorm(skip=...): {pattern!r} matches no layer; known: {', '.join(known)}")
        for name, layer in list(weighted_layers(net)):
            if not any(fnmatch(name, pattern) for pattern in self.skip):
                parametrizations.spectral_norm(layer, n_power_iterations=self.iterations)


def remove(net: nn.Module) -> nn.Module:
    """Fold every parametrisation of `net` into plain weights, in place: same outputs as in eval mode, less work."""
    for module in list(net.modules()):
        if not parametrize.is_parametrized(module):
            continue
        wrapped = module.parametrizations
        assert isinstance(wrapped, nn.ModuleDict)
        wrapped.eval()  # a training-mode read of the weight would move the singular vectors
        for name in list(wrapped):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return net
