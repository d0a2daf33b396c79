"""Constraints project D's weights in place after each of its updates: callables net -> None."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from equipoise.core.types import component

from .matrices import as_matrix, clip_singular_values, gain_of, output_axis, weighted_layers
from .normalizers import NoNormalizer

__all__ = ["ClipSingularValues", "ClipWeights", "Constraint", "UnitSphere"]


class Constraint(ABC):
    """A set that D's weights stay in: those that layers compute with, gain · W of equalised layers."""

    bounds: ClassVar[bool] = False
    """Whether it bounds D's Lipschitz constant."""

    @abstractmethod
    def __call__(self, net: nn.Module) -> None:
        """Project the weights of `net` in place, without gradient."""

    def check(self, cfg: Any) -> None:
        """Raises ValueError for a constraint with `d_normalizer`: a normalised weight is computed at every forward, so
        there is no stored one to project. Use one of the two.
        """
        if cfg.d_normalizer != NoNormalizer():
            raise ValueError(
                f"{self!r} and d_normalizer={cfg.d_normalizer!r} do not go together: a normalised weight is "
                "computed at every forward, not stored, so there is nothing to project. Use one of the two: "
                "d_normalizer=NoNormalizer, or no such constraint."
            )


@component
class ClipWeights(Constraint):
    """Clamps the weights and biases of D's layers to [-bound, bound] (Arjovsky et al. 2017, alg. 1).

    Gains of norms are not clamped: a D under this constraint has none. In a normalised layer the clamp would act on the
    normaliser's input and bound nothing, so a config refuses the two together.
    """

    bounds: ClassVar[bool] = True

    bound: float = Field(default=0.01, gt=0)

    @torch.no_grad()
    def __call__(self, net: nn.Module) -> None:
        for _, layer in weighted_layers(net):
            for name, weight in layer.named_parameters():
                bound = self.bound / (gain_of(layer) if name == "weight" else getattr(layer, "lr_multiplier", 1.0))
                weight.clamp_(-bound, bound)


@component
class ClipSingularValues(Constraint):
    """W <- U min(S, bound) Vᵀ of each layer's W = U S Vᵀ, (C_out, C_in·kh·kw) (Saito et al. 2017).

    The nearest weights without a singular value above `bound`. Biases are free.
    """

    bounds: ClassVar[bool] = True

    bound: float = Field(default=1.0, gt=0)

    @torch.no_grad()
    def __call__(self, net: nn.Module) -> None:
        """Raises ValueError if a layer is normalised."""
        for layer, weight in stored_weights(net, self):
            axis = output_axis(layer)
            clipped = clip_singular_values(as_matrix(weight, axis), self.bound / gain_of(layer))  # (C_out, the rest)
            weight.copy_(clipped.view_as(weight.movedim(axis, 0)).movedim(0, axis))


@component
class UnitSphere(Constraint):
    """W <- W / ‖W‖_F for each layer: "projecting the weights to a sphere" (Arjovsky et al. 2017, sec. 3).

    The paper found little difference from clipping. Biases are free.
    """

    bounds: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, net: nn.Module) -> None:
        """Raises ValueError if a layer is normalised."""
        for layer, weight in stored_weights(net, self):
            weight.div_(gain_of(layer) * torch.linalg.vector_norm(weight).clamp_min(torch.finfo(weight.dtype).tiny))


def stored_weights(net: nn.Module, constraint: Constraint) -> list[tuple[nn.Module, nn.Parameter]]:
    """The layers of `net` and their weights.

    Raises:
        ValueError: if a normaliser computes a weight. Projecting the normaliser's input would not project the weight.
    """
    layers = []
    for name, layer in weighted_layers(net):
        weight = dict(layer.named_parameters(recurse=False)).get("weight")
        if weight is None:
            raise ValueError(
                f"{constraint!r} cannot project the weight of layer {name!r}, which a normaliser computes anew at "
                "every forward. Use one of the two: d_normalizer=NoNormalizer, or no such constraint."
            )
        layers.append((layer, weight))
    return layers
