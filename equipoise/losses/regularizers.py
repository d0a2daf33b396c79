"""Regularisers: penalties on the weights of a network, unweighted scalars that are added to its player's loss.

    regularizer = Orthogonal(strength=1e-4)
    loss = loss + regularizer.weight(nimg) * regularizer(G)

Regularisers read the network, not images. A weight is the effective weight, after its normaliser, as the matrix
(C_out, C_in·kh·kw). SAN heads are left alone: they learn the direction and the length of their vector separately.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.schedules import Schedule, at
from equipoise.core.types import component
from equipoise.weights import as_matrix, effective_weight, gram, output_axis, squared_singular_values, weighted_layers

from .base import Memory, Place, Players, Seen, Term

__all__ = [
    "HistoricalAverage",
    "Orthogonal",
    "Regularization",
    "Regularizer",
    "Regularizing",
    "SingularValuePenalty",
    "SpectralNormPenalty",
]


class Regularization(Memory):
    """A regulariser bound to one network."""

    @abstractmethod
    def forward(self, net: nn.Module) -> Tensor:
        """-> (), unweighted, differentiable in the weights of `net`."""


class Regularizer(Term):
    """A penalty on the weights of the network that its player trains.

    player: "D", "G", or "both": each network by itself.
    """

    place: ClassVar[Place] = "whole"

    @abstractmethod
    def build(self, net: nn.Module) -> Regularization:
        """Bind to `net`, starting from its current weights."""

    def at_work(self, net: nn.Module) -> Term:
        return Regularizing(self, self.build(net))

    def of(self, seen: Seen) -> Tensor:
        value: Tensor = self.build(seen.net)(seen.net)
        return value


class Regularizing(Term):
    """A regulariser bound to its network, as a term of its player."""

    place: ClassVar[Place] = "whole"
    memory: Regularization

    def __init__(self, regularizer: Regularizer, memory: Regularization):
        self.regularizer, self.memory = regularizer, memory
        self.every, self.player = regularizer.every, regularizer.player

    @property
    def name(self) -> str:
        return type(self.regularizer).__name__

    def weight(self, nimg: int) -> float:
        return self.regularizer.weight(nimg)

    def of(self, seen: Seen) -> Tensor:
        value: Tensor = self.memory(seen.net)
        return value


class Memoryless(Regularization):
    """A regulariser that is a function of the weights alone."""

    def __init__(self, value: Callable[[nn.Module], Tensor]):
        super().__init__()
        self.value = value

    def forward(self, net: nn.Module) -> Tensor:
        return self.value(net)

    def update(self, net: nn.Module) -> None:
        pass


def total(value: Callable[[Tensor], Tensor], net: nn.Module, *, embeddings: bool = True) -> Tensor:
    """Sum of value(W) over the effective weights of `net` as matrices, ().

    Raises:
        ValueError: if every weight of `net` is left out.
    """
    layers = [layer for _, layer in weighted_layers(net) if embeddings or not isinstance(layer, nn.Embedding)]
    if not layers:
        raise ValueError(f"{type(net).__name__} has no linear or convolutional layer to regularise outside SAN heads")
    return torch.stack([value(as_matrix(effective_weight(layer), output_axis(layer))) for layer in layers]).sum()


@component
class Orthogonal(Regularizer):
    """strength Σ ‖W Wᵀ ⊙ (1 - I)‖_F² over the layers: filters pairwise orthogonal (Brock et al. 2019, sec. 3.1).

    The rows of W are the filters. BigGAN writes a filter per column, so its Wᵀ W is this W Wᵀ, (C_out, C_out).
    Embeddings have no filters and take no part.

    off_diagonal: False is ‖W Wᵀ - I‖_F² (Brock et al. 2017), which also makes each filter a unit vector.
    """

    strength: Schedule = 1e-4
    off_diagonal: bool = True
    every: int = Field(default=1, ge=1)
    player: Players = "D"

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, net: nn.Module) -> Tensor:
        return total(self.correlation, net, embeddings=False)

    def correlation(self, matrix: Tensor) -> Tensor:
        products = gram(matrix)  # (C_out, C_out)
        unwanted = (
            products.diagonal().diag()
            if self.off_diagonal
            else torch.eye(len(products), dtype=products.dtype, device=products.device)
        )
        return (products - unwanted).square().sum()

    def build(self, net: nn.Module) -> Regularization:
        return Memoryless(self)


@component
class SpectralNormPenalty(Regularizer):
    """strength/2 Σ σ(W)² over the layers, σ the largest singular value (Yoshida & Miyato 2017).

    σ² and its gradient, 2 σ u vᵀ, are exact. The paper's power iteration would need state.
    """

    strength: Schedule = 0.01
    every: int = Field(default=1, ge=1)
    player: Players = "D"

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg) / 2

    def __call__(self, net: nn.Module) -> Tensor:
        return total(lambda matrix: squared_singular_values(matrix)[-1], net)

    def build(self, net: nn.Module) -> Regularization:
        return Memoryless(self)


@component
class SingularValuePenalty(Regularizer):
    """strength Σ max(0, s - bound)² over all singular values s of all layers: `ClipSingularValues` made soft.

    Zero as long as every σ(W) is within the bound.
    """

    strength: Schedule = 1.0
    bound: float = Field(default=1.0, gt=0)
    every: int = Field(default=1, ge=1)
    player: Players = "D"

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, net: nn.Module) -> Tensor:
        return total(self.excess, net)

    def excess(self, matrix: Tensor) -> Tensor:
        above = squared_singular_values(matrix).clamp_min(self.bound**2)  # before √, whose slope at 0 is infinite
        return (above.sqrt() - self.bound).clamp_min(0).square().sum()

    def build(self, net: nn.Module) -> Regularization:
        return Memoryless(self)


@component
class HistoricalAverage(Regularizer):
    """strength ‖θ - (1/t) Σ θ[i]‖², i = 1 ... t, θ all parameters of the network (Salimans et al. 2016, sec. 3.3).

    θ[i] are the parameters at the start of step i, the current step included. The mean counts as a constant.
    The paper names no strength; with Adam at 1e-3, strength 1 kept digits from being learned at all.
    """

    strength: Schedule = 0.01
    every: int = Field(default=1, ge=1)
    player: Players = "D"

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def build(self, net: nn.Module) -> Regularization:
        return RunningMean(net)


class RunningMean(Regularization):
    """‖θ - mean‖², mean of the t values of θ so far."""

    mean: Tensor
    t: Tensor

    def __init__(self, net: nn.Module):
        super().__init__()
        mean = flat(net).detach()
        self.register_buffer("mean", mean)  # (P,)
        self.register_buffer("t", torch.ones((), dtype=torch.int64, device=mean.device))

    def forward(self, net: nn.Module) -> Tensor:
        return (flat(net) - self.mean).square().sum()

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        self.t += 1
        self.mean += (flat(net) - self.mean) / self.t


def flat(net: nn.Module) -> Tensor:
    """All parameters of `net`, (P,): a copy."""
    return torch.cat([p.flatten() for p in net.parameters()])
