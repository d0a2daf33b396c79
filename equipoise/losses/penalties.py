"""Penalties on D: one value per image, unweighted; the loop applies `weight` and `every`.

A penalty sees D only as `critic(x, y) -> (N, K)`, so in your own loop it is
``(p.weight(nimg) * p(critic, Batch(real), Batch(fake))).mean()``.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from equipoise.compute.precision import without_autocast
from equipoise.core.schedules import Schedule, at
from equipoise.core.types import Batch, Critic, ImageSpec, component

from .base import Place, Seen, Term
from .gamma import Gamma, gamma_at, gamma_for

__all__ = ["R1", "R2", "Dragan", "Drift", "GradientPenalty", "Penalty"]


Images = Batch | Tensor
"""Images with their classes, or without."""


class Penalty(Term):
    """A penalty on D, a frozen value that sees D as a function of images alone.

    on_real: the penalty calls D on the real images of the batch alone, and looks at no generated image.
    """

    player = "D"
    place: ClassVar[Place] = "apart"
    on_real: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:
        """-> (N,), in float32.

        real, fake: images with their classes, or a plain tensor of images. `fake` may be left out where no generated
            image takes part.
        """

    def of(self, seen: Seen) -> Tensor:
        """Mean over images.

        Raises:
            ValueError: if the value does not depend on D's weights.
        """
        value = (self(seen.critic_of_real, seen.real) if self.on_real else self(seen.critic, seen.real, seen.fake)).mean()
        if not value.requires_grad:
            raise ValueError(
                f"{self!r} does not depend on D's weights, so it would train nothing: something cut it from the graph "
                "(detach(), torch.no_grad(), or torch.autograd.grad without create_graph=True)"
            )
        return value


# ---- what they share -------------------------------------------------------------------------------------


def precise(x: Tensor) -> Tensor:
    """`x` in float32 or wider, without its history."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def batch_of(images: Images | None, name: str) -> Batch:
    """`images` as a batch, without classes for a tensor. Raises ValueError if `images` is None."""
    if images is None:
        raise ValueError(f"this penalty looks at {name} images, and was given none: pass critic, real and fake")
    return Batch(images) if isinstance(images, Tensor) else images


def input_gradient(critic: Critic, batch: Batch) -> Tensor:
    """d/dx of the summed logits at `batch.x`, same shape, differentiable in D's weights; float32 under autocast too."""
    x = precise(batch.x).requires_grad_(True)
    with without_autocast(x):
        (gradient,) = torch.autograd.grad(critic(x, batch.y).sum(), x, create_graph=True)
    return gradient


def squared_norm(gradient: Tensor) -> Tensor:
    """(N, ...) -> (N,): one squared L2 norm per image, never one over the batch."""
    return gradient.square().flatten(1).sum(1)


def distance(gradient: Tensor, target: float, one_sided: bool) -> Tensor:
    """(N, ...) -> (N,): (‖g‖ - target)², or max(0, ‖g‖ - target)²."""
    squared = squared_norm(gradient)
    if target == 0:
        return squared  # exactly, without a root
    excess = (squared + 1e-12).sqrt() - target  # the slope of √ is infinite at 0
    return (excess.clamp_min(0) if one_sided else excess).square()


# ---- zero-centred, on the data ---------------------------------------------------------------------------


@component
class R1(Penalty):
    """gamma/2 ‖grad D(x)‖² on real images (Mescheder et al. 2018, eq. 9).

    gamma: a schedule, or `ByResolution(0.0002)`.
    """

    of_gradient: ClassVar[bool] = True
    on_real: ClassVar[bool] = True
    gamma: Gamma = 10.0
    every: int = Field(default=16, ge=1)

    def weight(self, nimg: int) -> float:
        return gamma_at(self.gamma, nimg) / 2

    def for_data(self, spec: ImageSpec, batch_size: int) -> Term:
        return replace(self, gamma=gamma_for(self.gamma, spec, batch_size))

    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:
        return squared_norm(input_gradient(critic, batch_of(real, "real")))


@component
class R2(Penalty):
    """gamma/2 ‖grad D(G(z))‖² on generated images (Mescheder et al. 2018, eq. 10).

    gamma: as in `R1`.
    """

    of_gradient: ClassVar[bool] = True
    gamma: Gamma = 10.0
    every: int = Field(default=16, ge=1)

    def weight(self, nimg: int) -> float:
        return gamma_at(self.gamma, nimg) / 2

    def for_data(self, spec: ImageSpec, batch_size: int) -> Term:
        return replace(self, gamma=gamma_for(self.gamma, spec, batch_size))

    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:
        return squared_norm(input_gradient(critic, batch_of(fake, "generated")))


# ---- around a target, elsewhere --------------------------------------------------------------------------


@component
class GradientPenalty(Penalty):
    """strength (‖grad D(x̂)‖ - target)², x̂ uniform on the segment real_i - fake_i (Gulrajani et al. 2017, eq. 3).

    One ε and one norm per image. The labels of x̂ are the real images'.

    target: 1 is WGAN-GP. 0 is the zero-centred form, ‖grad D(x̂)‖² (Thanh-Tung et al. 2019).
    one_sided: max(0, ‖grad D(x̂)‖ - target)², which lets D be flatter (Gulrajani et al. 2017, sec. 4; Petzka et al.
        2018).
    """

    of_gradient: ClassVar[bool] = True
    strength: Schedule = 10.0
    target: float = Field(default=1.0, ge=0)
    one_sided: bool = False
    every: int = Field(default=1, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:
        """Raises ValueError if real and generated images differ in number or shape."""
        real, fake = batch_of(real, "real"), batch_of(fake, "generated")
        if real.x.shape != fake.x.shape:
            raise ValueError(
                f"GradientPenalty pairs real and generated images one by one, got {tuple(real.x.shape)} and "
                f"{tuple(fake.x.shape)}; give one generated image for each real image"
            )
        x, generated = precise(real.x), precise(fake.x)
        epsilon = torch.rand(one_each(x), dtype=x.dtype, device=x.device)  # (N, 1, 1, 1)
        between = Batch(torch.lerp(generated, x, epsilon), real.y)
        return distance(input_gradient(critic, between), self.target, self.one_sided)


def one_each(x: Tensor) -> tuple[int, ...]:
    """The shape of one number per image."""
    return (len(x), *[1] * (x.ndim - 1))


@component
class Dragan(Penalty):
    """strength (‖grad D(x̂)‖ - target)², x̂ = real + noise·std(real)·u, u ~ U[0, 1] per pixel (Kodali et al. 2017).

    A penalty near the data; generated images take no part. std is one number, over all pixels of this process's share
    of the batch. The labels of x̂ are the real images'.
    """

    whole_batch: ClassVar[bool] = True
    of_gradient: ClassVar[bool] = True

    strength: Schedule = 10.0
    noise: float = Field(default=0.5, ge=0)
    target: float = Field(default=1.0, ge=0)
    every: int = Field(default=1, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:
        real = batch_of(real, "real")
        x = precise(real.x)
        u = torch.rand(x.shape, dtype=x.dtype, device=x.device)
        near = Batch(x + self.noise * x.std(correction=0) * u, real.y)
        return distance(input_gradient(critic, near), self.target, one_sided=False)


# ---- on the values of D ----------------------------------------------------------------------------------


@component
class Drift(Penalty):
    """strength D(x)² on real images: keeps a Wasserstein critic from drifting (Karras et al. 2018, app. A).

    A critic's loss does not change when a constant is added to D, so nothing else holds the logits near 0. The squares
    of an image's logits are averaged.
    """

    on_real: ClassVar[bool] = True
    strength: Schedule = 0.001
    every: int = Field(default=1, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:
        real = batch_of(real, "real")
        x = precise(real.x)
        with without_autocast(x):
            return critic(x, real.y).square().mean(1)
