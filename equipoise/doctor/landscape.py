"""The landscape of a game at a checkpoint: rotation, attraction and a verdict, from eigenvalues of its Jacobian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .arnoldi import arnoldi
from .field import Field, Jacobian

__all__ = ["Landscape", "Measured", "Verdict", "landscape", "spread"]

Verdict = Literal["attracts", "circles", "repels", "unclear"]

ROUND = math.log(2) / (2 * math.pi)
"""A motion circles if its distance changes by less than a factor of 2 in a turn: |Re λ| below this times |Im λ|."""


class Measured(NamedTuple):
    """A number with an error bar."""

    value: float
    error: float


@dataclass(frozen=True)
class Landscape:
    """The linear motion near the current weights, d(δθ)/dt = J δθ, on one batch.

    An eigenvalue λ of J multiplies its direction by e^{λt}: the real part attracts (below 0) or repels, the imaginary
    part rotates, in radians per unit of time. A unit of time is 1 / lr steps of simultaneous gradient descent.

    eigenvalues: (k,) complex, the largest modulus first.  errors: error bars of the eigenvalues, (k,).
        Arnoldi's iteration finds the outermost eigenvalues first. Those within the cloud have large errors.
    speeds: ‖∂L_G/∂θ_G‖ and ‖∂L_D/∂θ_D‖. Both are 0 at an equilibrium, where a verdict is about attraction to it.
        Elsewhere the verdict is about the motions around the current one.
    floor: eigenvalues below this share of the largest modulus count as 0: slow motions, and moves along equilibria.
    """

    eigenvalues: Tensor
    errors: Tensor
    speeds: tuple[float, float]
    floor: float = 0.1

    @property
    def rightmost(self) -> Tensor:
        """Indices of `eigenvalues`, the largest real part first: these decide stability."""
        return self.eigenvalues.real.argsort(descending=True)

    @property
    def outer(self) -> Tensor:
        """Indices of eigenvalues that do not count as 0, the largest modulus first."""
        size = self.eigenvalues.abs()
        return (size > self.floor * size.max()).nonzero().flatten()

    @property
    def attraction(self) -> Measured:
        """-max Re λ over outer eigenvalues: the rate at which their slowest motion decays. Negative: it grows."""
        return self._largest(self.eigenvalues.real, -1.0)

    @property
    def rotation(self) -> Measured:
        """The largest |Im λ| of outer eigenvalues, in radians per unit of time."""
        return self._largest(self.eigenvalues.imag.abs(), 1.0)

    def _largest(self, part: Tensor, sign: float) -> Measured:
        outer = self.outer
        if not len(outer):
            return Measured(0.0, float(self.errors.max()))
        i = outer[part[outer].argmax()]
        return Measured(sign * float(part[i]), float(self.errors[i]))

    @property
    def verdict(self) -> Verdict:
        """The course of the outer motions, the worst of them.

        "circles": in a turn, its distance changes by less than a factor of 2. "attracts", "repels": it falls, or grows,
        faster than that. "unclear": an error bar crosses a bound, or J is 0.
        """
        outer = self.outer
        if not len(outer):
            return "unclear"
        values, errors = self.eigenvalues[outer], self.errors[outer]
        low, high = (((values.real + sign * errors) / values.imag.abs()).max() for sign in (-1, 1))
        named = {course(float(low)), course(float(high))}
        return named.pop() if len(named) == 1 else "unclear"


def course(growth: float) -> Verdict:
    """The course of a motion. growth: of the logarithm of its distance per radian, Re λ / |Im λ|."""
    if abs(growth) < ROUND:
        return "circles"
    return "attracts" if growth < 0 else "repels"


def landscape(field: Field, *, steps: int = 60, floor: float = 0.1, seed: int = 0) -> Landscape:
    """Leading eigenvalues of the Jacobian of `field` at its current weights (Berard et al. 2020, sec. 3).

        land = landscape(field)
        land.eigenvalues, land.errors  # (k,) complex, and how far off each may be
        land.rotation, land.attraction  # numbers with error bars
        land.verdict  # "attracts", "circles", "repels" or "unclear"

    steps: products with J. More steps find more eigenvalues; n steps find all.
    floor: share of the largest modulus below which eigenvalues count as 0, in attraction, rotation and verdict.
    seed: of the random direction from which Arnoldi's iteration starts.

    Raises:
        ValueError: if the game lacks second derivatives, or its gradients or products are not finite.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} finds no eigenvalue: give 1 or more, such as steps=60")
    v = field.v()
    require_finite(v)
    start = torch.randn(len(v), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(v)
    ritz = arnoldi(Jacobian(field), start, steps)
    order = ritz.values.abs().argsort(descending=True, stable=True)
    g, d = (float(part.norm()) for part in v.split(field.sizes))
    return Landscape(ritz.values[order], ritz.errors[order], (g, d), floor)


def spread(landscapes: Sequence[Landscape]) -> dict[str, Measured]:
    """Attraction and rotation over several batches: mean and standard deviation between batches.

    Raises:
        ValueError: for less than two landscapes.
    """
    if len(landscapes) < 2:
        raise ValueError(f"a spread needs two or more batches, got {len(landscapes)}")
    kinds = {
        "attraction": [land.attraction.value for land in landscapes],
        "rotation": [land.rotation.value for land in landscapes],
    }
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in kinds.items()}
    return {name: Measured(float(t.mean()), float(t.std())) for name, t in tensors.items()}


def require_finite(v: Tensor) -> None:
    if not v.isfinite().all():
        raise ValueError(
            "the gradients at these weights are NaN or Inf: the run has diverged. Give an earlier checkpoint"
        )
