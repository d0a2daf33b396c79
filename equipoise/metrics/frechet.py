"""The Fréchet distance between two sets of features, each treated as a Gaussian (Heusel et al. 2017; Dowson 1982).

With features of an Inception network it is the FID. It is biased: fewer samples give a larger distance, so compare only
distances from equal numbers of samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from equipoise.core.types import component

from .base import Better, Found, Metric, Number, Samples
from .gaussian import EPS, Array, GaussianStats, same_features

__all__ = ["frechet_distance"]

PRECISION = 1e-6
"""Largest expected rounding error of the distance, as a fraction of it; above it, the slower algorithm is used."""


def frechet_distance(real: ArrayLike | Tensor | GaussianStats, fake: ArrayLike | Tensor | GaussianStats) -> float:
    """‖m - m'‖² + Tr(C + C' - 2 (C C')^½), m and C the mean and covariance of each set (Heusel et al. 2017, eq. 6).

    real, fake: features (N, F) and (M, F), or their `GaussianStats`.

    With C = Rᵀ R and C' = R'ᵀ R' the eigenvalues of (C C')^½ are the singular values of R R'ᵀ. So no matrix root is
    needed: nothing turns complex, and singular covariances lose no digits. The result is a squared distance, 0 for
    equal sets.

    Raises:
        ValueError: for NaN or Inf, fewer than 2 samples, or sets that differ in F.

    >>> frechet_distance([[0.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [3.0, 6.0]])
    25.0
    """
    a, b = (x if isinstance(x, GaussianStats) else GaussianStats(x) for x in (real, fake))
    same_features(a, b)
    r, s = a.root, b.root
    product = r @ s.T
    between_means = np.square(a.mean - b.mean).sum()
    spreads = np.square(r).sum() + np.square(s).sum()
    shared, error = by_eigenvalues(product)  # Tr (C C')^½
    if 2 * error > PRECISION * (between_means + spreads - 2 * shared):
        shared = np.linalg.svd(product, compute_uv=False).sum()
    return float(between_means + max(spreads - 2 * shared, 0))  # for equal sets, rounding may give less than 0


def by_eigenvalues(w: Array) -> tuple[float, float]:
    """The sum of the singular values of w, as Σ √λ over the eigenvalues of w wᵀ, and a bound on its error.

    It takes a third of the time of the singular value decomposition. But rounding moves every λ by about eps ‖λ‖, and
    so √λ by eps ‖λ‖ / 2√λ, which is large for small λ. Errors have either sign, so their squares add (Higham & Mary
    2019). The bound is three times the root of the sum, with a factor 4 for the "about". If some λ may be 0, the error
    of √λ is unknown, and the bound is inf.
    """
    squares = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    values = np.linalg.eigvalsh(squares)  # ascending
    off = 4 * EPS * np.linalg.norm(values)
    if values[0] <= off:
        return 0.0, math.inf
    roots = np.sqrt(values)
    return float(roots.sum()), float(3 * off * np.linalg.norm(0.5 / roots))


@component
class Frechet(Metric[GaussianStats, GaussianStats]):
    """Squared distance of two Gaussians with the sets' means and covariances (Heusel et al. 2017)."""

    name: ClassVar[str] = "frechet"
    better: ClassVar[Mapping[str, Better]] = {"frechet": "lower"}
    least: ClassVar[tuple[int, int]] = (2, 2)

    def ask(self, fake: Samples, real: Samples) -> tuple[GaussianStats, GaussianStats]:
        return fake.stats, real.stats

    def find(self, seed: int, fake: GaussianStats, real: GaussianStats) -> Found:  # noqa: ARG002
        return Found({"frechet": Number(frechet_distance(real, fake))}, {})


@component
class FID(Metric[GaussianStats, GaussianStats]):
    """The Fréchet distance with features of the Inception network. With other features it is called `frechet`."""

    name: ClassVar[str] = "fid"
    better: ClassVar[Mapping[str, Better]] = {"fid": "lower"}
    least: ClassVar[tuple[int, int]] = (2, 2)
    only: ClassVar[str | None] = "inception"

    def ask(self, fake: Samples, real: Samples) -> tuple[GaussianStats, GaussianStats]:
        return fake.stats, real.stats

    def find(self, seed: int, fake: GaussianStats, real: GaussianStats) -> Found:  # noqa: ARG002
        return Found({"fid": Number(frechet_distance(real, fake))}, {})
