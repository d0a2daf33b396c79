"""Penalties on D: one value per image, unweighted; the loop applies `weight` and `every`.

A penalty sees D only as `critic(x, y) -> (N, K)`, so in your own loop it is
``(p.weight(nimg) * p(critic, Batch(real), Batch(fake))).mean()``.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor

from .schedules import Schedule, at
from .types import Batch, Critic, component

__all__ = ["R1", "R2", "GradientPenalty", "Penalty"]


@runtime_checkable
class Penalty(Protocol):
    """A penalty on D, a frozen value."""

    @property
    def every(self) -> int:
        """Applied on every `every`-th D update, times `every` (lazy regularisation, Karras et al. 2020)."""

    def weight(self, nimg: int) -> float:
        """Factor after `nimg` images; kept apart from the value, so that logs compare across weights."""

    def __call__(self, critic: Critic, real: Batch, fake: Batch) -> Tensor:
        """-> (N,), in float32."""


def input_gradient(critic: Critic, batch: Batch) -> Tensor:
    """d/dx of the summed logits at `batch.x`, same shape, differentiable in D's weights."""
    x = batch.x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(x, batch.y).sum(), x, create_graph=True)
    return gradient


def squared_norm(gradient: Tensor) -> Tensor:
    """(N, ...) -> (N,): one squared L2 norm per image, never one over the batch."""
    return gradient.square().flatten(1).sum(1)


@component
class R1:
    """gamma/2 ‖grad D(x)‖² on real images (Mescheder et al. 2018, eq. 9)."""

    gamma: Schedule = 10.0
    every: int = Field(default=16, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.gamma, nimg) / 2

    def __call__(self, critic: Critic, real: Batch, fake: Batch) -> Tensor:
        return squared_norm(input_gradient(critic, real))


@component
class R2:
    """gamma/2 ‖grad D(G(z))‖² on generated images (Mescheder et al. 2018, eq. 10)."""

    gamma: Schedule = 10.0
    every: int = Field(default=16, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.gamma, nimg) / 2

    def __call__(self, critic: Critic, real: Batch, fake: Batch) -> Tensor:
        return squared_norm(input_gradient(critic, fake))


@component
class GradientPenalty:
    """strength (‖grad D(x̂)‖ - target)², x̂ uniform on the segment real_i - fake_i (Gulrajani et al. 2017, eq. 3).

    One ε and one norm per image. The labels of x̂ are the real images'.
    """

    strength: Schedule = 10.0
    target: float = Field(default=1.0, ge=0)
    every: int = Field(default=1, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, critic: Critic, real: Batch, fake: Batch) -> Tensor:
        one_each = (len(real.x), *[1] * (real.x.ndim - 1))  # (N, 1, 1, 1)
        epsilon = torch.rand(one_each, dtype=real.x.dtype, device=real.x.device)
        between = Batch(torch.lerp(fake.x, real.x, epsilon), real.y)
        norm = (squared_norm(input_gradient(critic, between)) + 1e-12).sqrt()
        return (norm - self.target).square()
