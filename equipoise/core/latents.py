"""The space of z: its distribution, truncation, and the ways from one point to another. Tensors alone, no network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .types import component

__all__ = ["Normal", "Prior", "Uniform", "lerp", "require_threshold", "slerp", "truncate", "truncated_normal"]


# ---- the distribution of z ------------------------------------------------------------------------------


class Prior(ABC):
    """The distribution that a generator is trained on.

    law: of a component, as text.
    path: between two of its draws, which `walks.interpolate` takes unless told otherwise.
    """

    law: ClassVar[str]
    path: ClassVar[str]

    @abstractmethod
    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Independent components, float32, on the generator's device."""

    @abstractmethod
    def truncate(self, z: Tensor, threshold: float) -> Tensor:
        """Draws -> draws given |z_i| <= threshold. Raises ValueError unless threshold > 0."""


@component
class Normal(Prior):
    """z_i ~ N(0, 1). Nearly all draws have about the same norm, so paths between them are spherical."""

    law: ClassVar[str] = "N(0, 1)"
    path: ClassVar[str] = "spherical"

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device)

    def truncate(self, z: Tensor, threshold: float) -> Tensor:
        return truncate(z, threshold)


@component
class Uniform(Prior):
    """z_i ~ U[-1, 1], as in DCGAN (Radford et al. 2016). A great arc may leave this cube, so paths are straight."""

    law: ClassVar[str] = "U[-1, 1]"
    path: ClassVar[str] = "linear"

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, device=generator.device) - 1

    def truncate(self, z: Tensor, threshold: float) -> Tensor:
        """Of a uniform distribution the truncated one is uniform again: min(threshold, 1) z."""
        require_threshold(threshold)
        return min(threshold, 1.0) * z


# ---- truncation ------------------------------------------------------------------------------------------


def truncate(z: Tensor, threshold: float) -> Tensor:
    """Components of N(0, 1) -> components of N(0, 1) given |z_i| <= threshold, the truncated normal; same shape.

    erf(z'/√2) = erf(t/√2) erf(z/√2), in float64: the inverse distribution function of the truncated normal at the
    quantile that z_i has. It is the distribution of drawing every component with |z_i| > t again until it has not
    (Brock et al. 2019, sec. 3.1), and not that of t·z, which is normal still. Because it follows quantiles, an image
    keeps its place while t changes: a small t moves it towards the mode, and t = inf leaves z as it is.

    Raises:
        ValueError: unless threshold > 0.

    >>> truncate(torch.tensor([-3.0, 0.0, 3.0]), 1.0)
    tensor([-0.9962,  0.0000,  0.9962])
    """
    require_threshold(threshold)
    if threshold == math.inf:
        return z.clone()
    kept = math.erf(threshold / math.sqrt(2))  # P(|z_i| <= threshold)
    moved = math.sqrt(2) * torch.erfinv(kept * torch.erf(z.double() / math.sqrt(2)))
    return moved.clamp(-threshold, threshold).to(z.dtype)  # where kept rounds to 1, the tails became infinite


def require_threshold(threshold: float) -> None:
    """Raises ValueError unless threshold > 0."""
    if not threshold > 0:
        raise ValueError(f"a threshold of truncation is above 0, such as 0.5, got {threshold}; inf truncates nothing")


def truncated_normal(shape: Sequence[int], threshold: float, generator: torch.Generator) -> Tensor:
    """Independent draws from N(0, 1) given |z_i| <= threshold; float32, on the generator's device. See `truncate`."""
    return truncate(torch.randn(*shape, generator=generator, device=generator.device), threshold)


# ---- interpolation ---------------------------------------------------------------------------------------


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """(1 - t) a + t b: the straight line. a, b (..., Z), t () or (...) -> (..., Z), float64 inside.

    Half-way between two draws of N(0, I) its norm is smaller by √2 than theirs, where such draws are hardly ever.
    """
    t = torch.as_tensor(t, dtype=torch.float64, device=a.device)[..., None]
    return ((1 - t) * a.double() + t * b.double()).to(a.dtype)


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """(sin((1 - t) Ω) a + sin(t Ω) b) / sin Ω, Ω the angle between a and b: the great arc (Shoemake 1985).

    a, b (..., Z), t () or (...) -> (..., Z), float64 inside. It keeps the norm if both have the same, and goes to
    `lerp` as Ω goes to 0. How White (2016) walks between latents.

    Raises:
        ValueError: if a or b is 0, which has no direction, or they are opposite, where every great arc is as short.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    t = torch.as_tensor(t, dtype=torch.float64, device=a.device)[..., None]
    a64, b64 = a.double(), b.double()
    norms = a64.norm(dim=-1, keepdim=True), b64.norm(dim=-1, keepdim=True)
    if any((norm == 0).any() for norm in norms):
        raise ValueError("a spherical path needs directions, and one of its ends is 0: take the linear path")
    u, v = a64 / norms[0], b64 / norms[1]
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    turns = angle / math.pi  # exact to rounding near 0 and 1, where arccos of the inner product is not
    if (1 - turns < 1e-6).any():
        raise ValueError("the ends are opposite, so no spherical path is the shortest: go by way of a third point")
    # sin(s Ω) / sin Ω with sin x = x sinc(x / π), so that nothing is 0 / 0 at Ω = 0
    first, second = (s * torch.sinc(s * turns) / torch.sinc(turns) for s in (1 - t, t))
    return (first * a64 + second * b64).to(a.dtype)
