"""The latent space: the distribution of z, truncation, and paths between two latents. Tensors only, no networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .types import component

__all__ = ["PATHS", "Normal", "Prior", "Uniform", "lerp", "require_threshold", "slerp", "truncate", "truncated_normal"]


# ---- the distribution of z ------------------------------------------------------------------------------


class Prior(ABC):
    """The distribution of z that a generator is trained with.

    law: distribution of one component of z, as text.
    path: default path of `walks.interpolate` between two latents, "spherical" or "linear".
    """

    law: ClassVar[str]
    path: ClassVar[str]

    @abstractmethod
    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Independent components, float32, on the generator's device."""

    @abstractmethod
    def like(self, z: Tensor) -> Tensor:
        """New draws of the shape, type and device of z, from torch's own generator."""

    @abstractmethod
    def truncate(self, z: Tensor, threshold: float) -> Tensor:
        """Map draws to draws given |z_i| <= threshold. Raises ValueError unless threshold > 0."""


@component
class Normal(Prior):
    """z_i ~ N(0, 1). Nearly all draws have about the same norm, so paths between them are spherical."""

    law: ClassVar[str] = "N(0, 1)"
    path: ClassVar[str] = "spherical"

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device)

    def like(self, z: Tensor) -> Tensor:
        return torch.randn_like(z)

    def truncate(self, z: Tensor, threshold: float) -> Tensor:
        return truncate(z, threshold)


@component
class Uniform(Prior):
    """z_i ~ U[-1, 1], as in DCGAN (Radford et al. 2016). A great arc may leave this cube, so paths are straight."""

    law: ClassVar[str] = "U[-1, 1]"
    path: ClassVar[str] = "linear"

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, device=generator.device) - 1

    def like(self, z: Tensor) -> Tensor:
        return 2 * torch.rand_like(z) - 1

    def truncate(self, z: Tensor, threshold: float) -> Tensor:
        """min(threshold, 1) z: a truncated uniform distribution is uniform again."""
        require_threshold(threshold)
        return min(threshold, 1.0) * z


# ---- truncation ------------------------------------------------------------------------------------------


def truncate(z: Tensor, threshold: float) -> Tensor:
    """Map draws z_i from N(0, 1) to the truncated normal, N(0, 1) given |z_i| <= threshold; same shape.

    erf(z'/√2) = erf(t/√2) erf(z/√2), t the threshold, in float64: each z_i keeps its quantile. z' has the distribution
    of redrawing every component with |z_i| > t (Brock et al. 2019, sec. 3.1); scaling to t·z would stay normal.
    So an image keeps its place while t changes: a small t moves it towards the mode, and t = inf returns z unchanged.

    Raises:
        ValueError: unless threshold > 0.

    >>> truncate(torch.tensor([-3.0, 0.0, 3.0]), 1.0)
    tensor([-0.9962,  0.0000,  0.9962])
    """
    require_threshold(threshold)
    if threshold == math.inf:
        return z.clone()
    mass = math.erf(threshold / math.sqrt(2))  # P(|z_i| <= threshold)
    moved = math.sqrt(2) * torch.erfinv(mass * torch.erf(z.double() / math.sqrt(2)))
    return moved.clamp(-threshold, threshold).to(z.dtype)  # where mass rounds to 1, the tails are infinite


def require_threshold(threshold: float) -> None:
    """Raise ValueError unless threshold > 0."""
    if not threshold > 0:
        raise ValueError(f"expected a truncation threshold above 0, such as 0.5 (inf: no truncation), got {threshold}")


def truncated_normal(shape: Sequence[int], threshold: float, generator: torch.Generator) -> Tensor:
    """Independent draws from N(0, 1) given |z_i| <= threshold; float32, on the generator's device. See `truncate`."""
    return truncate(torch.randn(*shape, generator=generator, device=generator.device), threshold)


# ---- interpolation ---------------------------------------------------------------------------------------


def lerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """(1 - t) a + t b: the straight line. a, b (..., Z), t () or (...) -> (..., Z), float64 inside.

    Half-way between two draws from N(0, I) the norm is about √2 times smaller than theirs; draws are hardly ever there.
    """
    t = torch.as_tensor(t, dtype=torch.float64, device=a.device)[..., None]
    return ((1 - t) * a.double() + t * b.double()).to(a.dtype)


def slerp(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    """(sin((1 - t) Ω) a + sin(t Ω) b) / sin Ω, Ω the angle between a and b: the great arc (Shoemake 1985).

    a, b (..., Z), t () or (...) -> (..., Z), float64 inside. If a and b have equal norms, so has every point between.
    As Ω -> 0 it tends to `lerp`. White (2016) walks between latents this way.

    Raises:
        ValueError: if a or b is 0, so its direction is undefined, or if they are opposite, so the arc is not unique.

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    t = torch.as_tensor(t, dtype=torch.float64, device=a.device)[..., None]
    a64, b64 = a.double(), b.double()
    norms = a64.norm(dim=-1, keepdim=True), b64.norm(dim=-1, keepdim=True)
    if any((norm == 0).any() for norm in norms):
        raise ValueError("a spherical path needs two directions, and one of its ends is 0: take the linear path")
    u, v = a64 / norms[0], b64 / norms[1]
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    turns = angle / math.pi  # accurate to rounding even near 0 and 1, unlike arccos of the inner product
    if (1 - turns < 1e-6).any():
        raise ValueError("the ends are opposite, so no spherical path is the shortest: go by way of a third point")
    # sin(s Ω) / sin Ω with sin x = x sinc(x / π): avoids 0 / 0 at Ω = 0
    first, second = (s * torch.sinc(s * turns) / torch.sinc(turns) for s in (1 - t, t))
    return (first * a64 + second * b64).to(a.dtype)


PATHS = {"spherical": slerp, "linear": lerp}
"""The paths by name, as `Prior.path` names them."""
