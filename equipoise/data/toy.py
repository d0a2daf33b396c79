"""Toy distributions, on which theory can be checked: points in one or two dimensions, with exact densities and modes.

Samples are float32 (N, dim), so `Batch(distribution.sample(...))` is a batch for losses, penalties and critics. A
distribution has a density only if it is a `Density`, and modes only if it is a `Mixture`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .base import DatasetConfig

__all__ = [
    "Density",
    "Dirac",
    "Distribution",
    "Grid",
    "Line",
    "Mixture",
    "Mixture1D",
    "Points",
    "Ring",
    "SwissRoll",
]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


# ---- interfaces ------------------------------------------------------------------------------------------


class Distribution(ABC):
    """A distribution of points.

    dim: number of coordinates.
    """

    dim: ClassVar[int]

    @abstractmethod
    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """(num, dim) float32, on the generator's device. Equal states of the generator draw equal points."""


class Density(Distribution):
    """A distribution with a density. Distributions on a line or a point of the plane have none."""

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """The logarithm of the density, (N, dim) -> (N,) float64, in nats, differentiable in x.

        Raises:
            ValueError: for another shape.
        """


class Mixture(Density):
    """Σ_k w_k N(m_k, s_k² I): M isotropic Gaussians, whose means are the modes."""

    @property
    @abstractmethod
    def modes(self) -> Tensor:
        """m, (M, dim) float64: means of the Gaussians."""

    @property
    @abstractmethod
    def spreads(self) -> Tensor:
        """s, (M,) float64: standard deviations."""

    @property
    @abstractmethod
    def shares(self) -> Tensor:
        """w, (M,) float64: weights, with sum 1."""

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        """(num, dim) float32: a mode with probability w, and Gaussian noise around it."""
        device = generator.device
        u = torch.rand(num, generator=generator, device=device, dtype=torch.float64)
        mode = torch.bucketize(u, self.shares.cumsum(0)[:-1].to(device), right=True)
        noise = torch.randn(num, self.dim, generator=generator, device=device, dtype=torch.float64)
        points = self.modes.to(device)[mode] + self.spreads.to(device)[mode, None] * noise
        return points.float()

    def log_density(self, x: Tensor) -> Tensor:
        x, s = points_of(x, self.dim), self.spreads.to(x.device)
        squares = (x[:, None] - self.modes.to(x.device)).square().sum(-1)  # (N, M)
        each = -squares / (2 * s**2) - self.dim / 2 * torch.log(2 * math.pi * s**2)
        return torch.logsumexp(each + self.shares.to(x.device).log(), dim=1)

    def assign(self, x: Tensor, within: float = 3.0) -> Tensor:
        """The mode that each point belongs to, (N, dim) -> (N,) int64; -1 for none.

        A point belongs to the nearest mode, with distance in the mode's standard deviations, if it lies within `within`
        of them. Three make a sample "high quality" (Srivastava et al. 2017, VEEGAN). A NaN point belongs to none.

        Raises:
            ValueError: for another shape.
        """
        x = points_of(x.detach(), self.dim)
        distances = (x[:, None] - self.modes.to(x.device)).norm(dim=-1) / self.spreads.to(x.device)  # (N, M)
        distance, mode = distances.min(dim=1)
        return torch.where(distance <= within, mode, -1)

    def counts(self, x: Tensor, within: float = 3.0) -> Tensor:
        """Number of points of each mode, (N, dim) -> (M,) int64. Points that belong to no mode are left out."""
        assigned = self.assign(x, within)
        return torch.bincount(assigned[assigned >= 0], minlength=len(self.modes))


# ---- mixtures ----------------------------------------------------------------------------------------------


@component
class Ring(Mixture):
    """`num` Gaussians at equal distances on a circle, counter-clockwise from (radius, 0): shows mode collapse.

    By default eight of standard deviation 0.02 at radius 2 (Metz et al. 2017). WGAN-GP divides these points by √2.
    VEEGAN and PacGAN use 0.01 at radius 1, the same picture at half the size.

    std: standard deviation of each Gaussian.
    """

    dim: ClassVar[int] = 2
    num: int = Field(default=8, ge=1)
    radius: Positive = 2.0
    std: Positive = 0.02

    @property
    def modes(self) -> Tensor:
        angles = 2 * math.pi / self.num * torch.arange(self.num, dtype=torch.float64)  # excludes 2π, a repeat of 0
        return self.radius * torch.stack([angles.cos(), angles.sin()], dim=1)

    @property
    def spreads(self) -> Tensor:
        return torch.full((self.num,), self.std, dtype=torch.float64)

    @property
    def shares(self) -> Tensor:
        return torch.full((self.num,), 1 / self.num, dtype=torch.float64)


@component
class Grid(Mixture):
    """side x side Gaussians on a square grid around (0, 0), `spacing` apart, row by row from the lower left.

    By default 25 of standard deviation 0.05, 2 apart (Srivastava et al. 2017, VEEGAN; PacGAN). WGAN-GP divides these
    points by 2.828, so that each coordinate has variance 1.

    std: standard deviation of each Gaussian.
    """

    dim: ClassVar[int] = 2
    side: int = Field(default=5, ge=1)
    spacing: Positive = 2.0
    std: Positive = 0.05

    @property
    def modes(self) -> Tensor:
        at = self.spacing * (torch.arange(self.side, dtype=torch.float64) - (self.side - 1) / 2)
        rows, columns = torch.meshgrid(at, at, indexing="ij")
        return torch.stack([columns.flatten(), rows.flatten()], dim=1)

    @property
    def spreads(self) -> Tensor:
        return torch.full((self.side**2,), self.std, dtype=torch.float64)

    @property
    def shares(self) -> Tensor:
        return torch.full((self.side**2,), 1 / self.side**2, dtype=torch.float64)


@component
class Mixture1D(Mixture):
    """Gaussians on the line, one for each of `means`.

    stds: standard deviation of each.
    weights: relative weight of each; None for equal weights.

    Raises:
        ValueError: unless means, stds and weights have equal lengths.
    """

    dim: ClassVar[int] = 1
    means: tuple[Finite, ...] = Field(default=(-2.0, 2.0), min_length=1)
    stds: tuple[Positive, ...] = (0.5, 0.5)
    weights: tuple[Positive, ...] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for unequal numbers of `means`, `stds` and `weights`. Give one of each per Gaussian."""
        counts = [len(self.means), len(self.stds), *([] if self.weights is None else [len(self.weights)])]
        if len(set(counts)) > 1:
            raise ValueError(
                f"expected equal numbers of means, stds and weights, got {', '.join(map(str, counts))}: give one of "
                "each per Gaussian"
            )

    @property
    def modes(self) -> Tensor:
        return torch.tensor(self.means, dtype=torch.float64)[:, None]

    @property
    def spreads(self) -> Tensor:
        return torch.tensor(self.stds, dtype=torch.float64)

    @property
    def shares(self) -> Tensor:
        weights = torch.tensor(self.weights or [1.0] * len(self.means), dtype=torch.float64)
        return weights / weights.sum()


# ---- other distributions -----------------------------------------------------------------------------------


ROLL = (1.5 * math.pi, 4.5 * math.pi)
NODES = 8


@component
class SwissRoll(Density):
    """(t (cos t, sin t) + noise · N(0, I)) / scale, t uniform on [1.5π, 4.5π]: one and a half turns of a spiral.

    Noise 0.25 and scale 7.5 are WGAN-GP's values (Gulrajani et al. 2017). The mean is (2, 2/(3π)) / scale, not 0.

    noise: standard deviation before the division; at least 0.01, since the density sums 700 / noise terms.
    """

    dim: ClassVar[int] = 2
    noise: float = Field(default=0.25, ge=0.01, allow_inf_nan=False)
    scale: Positive = 7.5

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        low, high = ROLL
        u = torch.rand(num, generator=generator, device=generator.device, dtype=torch.float64)
        noise = torch.randn(num, 2, generator=generator, device=generator.device, dtype=torch.float64)
        return ((spiral(low + (high - low) * u) + self.noise * noise) / self.scale).float()

    def log_density(self, x: Tensor) -> Tensor:
        """The integral over t of the noise's density around each point of the spiral, by Gauss-Legendre quadrature."""
        t, weights = (part.to(x.device) for part in self.quadrature())
        curve, variance = spiral(t) / self.scale, (self.noise / self.scale) ** 2
        parts = []
        for points in points_of(x, 2).split(max(1, 2**22 // len(t))):  # (n, T, 2) in 64 MB at most
            squares = (points[:, None] - curve).square().sum(-1)  # (n, T)
            parts.append(torch.logsumexp(-squares / (2 * variance) + weights.log(), dim=1))
        return torch.cat(parts) - math.log(2 * math.pi * variance)

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Values of t and their weights in the integral, (T,) each.

        Each panel has `NODES` nodes and is about as long as the noise is wide. The spiral's length grows as t²/2.
        """
        low, high = ROLL
        panels = math.ceil((high**2 - low**2) / (2 * self.noise))
        edges = np.sqrt(np.linspace(low**2, high**2, panels + 1))
        middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        t = middle[:, None] + half[:, None] * nodes
        return torch.from_numpy(t.ravel()), torch.from_numpy((half[:, None] * weights / (high - low)).ravel())


@component
class Line(Distribution):
    """(theta, Z), Z uniform on [0, 1]: one of two parallel lines (Arjovsky et al. 2017, example 1).

    The line at 0 and the line at theta ≠ 0 share no point. Between them JS is log 2 and KL is infinite, whatever theta;
    the Wasserstein distance is |theta|.
    """

    dim: ClassVar[int] = 2
    theta: Finite = 0.0

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        z = torch.rand(num, generator=generator, device=generator.device, dtype=torch.float32)
        return torch.stack([torch.full_like(z, self.theta), z], dim=1)


@component
class Dirac(Distribution):
    """The point theta. The Dirac-GAN has real data at 0 and learns theta (Mescheder et al. 2018, def. 2.1)."""

    dim: ClassVar[int] = 1
    theta: Finite = 0.0

    def sample(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.full((num, 1), self.theta, device=generator.device, dtype=torch.float32)


def spiral(t: Tensor) -> Tensor:
    """The points t (cos t, sin t), (N,) -> (N, 2)."""
    return torch.stack([t * t.cos(), t * t.sin()], dim=1)


def points_of(x: Tensor, dim: int) -> Tensor:
    """`x` in float64. Raises ValueError unless its shape is (N, dim)."""
    if x.ndim != 2 or x.shape[1] != dim or len(x) == 0:
        raise ValueError(f"expected points of shape (N, {dim}), N at least 1, got shape {tuple(x.shape)}")
    return x.double()


# ---- the data of a config ----------------------------------------------------------------------------------


@component
class Points(DatasetConfig):
    """Points of a distribution, as the data of a config. A point is an image of one pixel, its coordinates channels."""

    of: Distribution = Ring()

    def __post_init__(self) -> None:
        """Raises ValueError for points with `mirror`: points cannot be mirrored. Set `mirror=false`."""
        if self.mirror:
            raise ValueError(f"{self!r}: a point has no left and right, so there is nothing to mirror: mirror=False")

    def build(self) -> None:  # type: ignore[override]
        """Raise ValueError: there are no images to open."""
        raise ValueError(
            f"{self!r} holds points, not images: `equipoise train` needs images, `equipoise lab ring` trains on points"
        )
