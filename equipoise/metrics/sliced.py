"""The sliced Wasserstein distance: distances of projections on random lines, where sorting solves the problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .base import Better, Found, Metric, Number, Samples
from .kernel import pair

__all__ = ["sliced_wasserstein"]

Array = NDArray[np.float64]


def sliced_wasserstein(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, p: float = 2.0, projections: int = 500, seed: int = 0
) -> float:
    """(mean over directions ω of W_p(<ω, x>, <ω, y>)^p)^(1/p), ω uniform on the sphere (Bonneel et al. 2015).

    real, fake: features x (N, F) and y (M, F); N and M may differ.
    p: at least 1.
    projections: number of directions, drawn from `seed`.

    W_p on the line is the distance of the quantile functions, (∫ |F⁻¹(u) - G⁻¹(u)|^p du)^(1/p), computed exactly. A
    shift by v gives ‖v‖/√F for p = 2.

    Raises:
        ValueError: for NaN or Inf, sets that differ in F, fewer than 2 samples, p < 1, or no projection.

    >>> round(sliced_wasserstein([[0.0], [1.0]], [[3.0], [2.0]]), 6)
    2.0
    """
    x, y = pair(real, fake)
    if not p >= 1:
        raise ValueError(f"expected p of at least 1, got p={p}")
    if projections < 1:
        raise ValueError(f"expected at least one projection, got projections={projections}")
    rng = np.random.default_rng(seed)
    levels, i, j = steps(len(x), len(y))
    costs = np.empty(projections)
    for n in range(projections):
        direction: Array = rng.standard_normal((x.shape[1],))
        direction = direction / np.linalg.norm(direction)
        gaps = np.abs(np.sort(x @ direction)[i] - np.sort(y @ direction)[j])
        costs[n] = levels @ gaps**p
    return float(costs.mean() ** (1 / p))


def steps(n: int, m: int) -> tuple[Array, NDArray[np.int64], NDArray[np.int64]]:
    """Intervals on which the quantile functions of n and m samples are both constant: lengths (sum 1), rank in each."""
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)  # in units of 1/(nm), integers
    lengths = np.diff(ends, prepend=0)
    before = ends - lengths
    return lengths / (n * m), before // m, before // n


@component
class Sliced(Metric[Array, Array]):
    """Wasserstein distance on random lines, W_p (Bonneel et al. 2015)."""

    name: ClassVar[str] = "swd"
    better: ClassVar[Mapping[str, Better]] = {"sliced_wasserstein": "lower"}
    least: ClassVar[tuple[int, int]] = (2, 2)

    p: float = Field(default=2.0, ge=1)
    projections: int = Field(default=200, ge=1)

    def ask(self, fake: Samples, real: Samples) -> tuple[Array, Array]:
        return fake.features, real.features

    def find(self, seed: int, fake: Array, real: Array) -> Found:
        distance = sliced_wasserstein(real, fake, p=self.p, projections=self.projections, seed=seed)
        return Found({"sliced_wasserstein": Number(distance)}, {})
