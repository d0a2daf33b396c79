"""The Fréchet distance between two sets of features, each taken for a Gaussian (Heusel et al. 2017; Dowson 1982).

With the features of an Inception network it is the FID. It is biased: fewer samples give a larger distance, so only
distances of equally many samples compare.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .classes import array

__all__ = ["GaussianStats", "frechet_distance"]

Array = NDArray[np.float64]


class GaussianStats:
    """Mean and covariance of features (N, F), in float64; those of two sets together are `a + b`.

    So sets larger than memory are summed up batch by batch, in any order, and the shares of several processes too (it
    can be pickled: `all_gather_object`). The covariance, divided by N - 1, is kept as a factor R with Rᵀ R = (N - 1) C,
    because the root of C loses half of its digits where C is singular, which fewer samples than features make it.

    count: N.
    mean: (F,).
    factor: R, (at most 2 F, F).

    Raises:
        ValueError: if the features are no matrix of finite numbers, or to be added to others of another F.

    >>> whole = GaussianStats([[1.0, 0.0], [3.0, 0.0]]) + GaussianStats([[2.0, 3.0]])
    >>> whole.count, whole.mean
    (3, array([2., 1.]))
    """

    count: int
    mean: Array
    factor: Array

    def __init__(self, features: ArrayLike | Tensor):
        x = matrix(features)
        self.count, self.mean = len(x), x.mean(axis=0)
        self.factor = shortened(x - self.mean)

    def __add__(self, other: GaussianStats) -> GaussianStats:
        """Both sets in one (Chan et al. 1983): (N - 1) C of both, plus what the distance of their means adds."""
        same_features(self, other)
        both = object.__new__(GaussianStats)
        both.count = self.count + other.count
        step = other.mean - self.mean
        both.mean = self.mean + other.count / both.count * step
        between = math.sqrt(self.count / both.count * other.count) * step
        both.factor = shortened(np.concatenate([self.factor, other.factor, between[None]]))
        return both

    @property
    def root(self) -> Array:
        """(K, F) with K <= F and rootᵀ root = C.

        Raises:
            ValueError: if there are fewer than 2 samples.
        """
        if self.count < 2:
            raise ValueError(
                "a single sample has no covariance: give at least 2 samples, more than features if you can"
            )
        return shortened(self.factor, self.factor.shape[1]) / math.sqrt(self.count - 1)

    @property
    def covariance(self) -> Array:
        """C, (F, F). Raises ValueError if there are fewer than 2 samples."""
        return self.root.T @ self.root


def frechet_distance(real: ArrayLike | Tensor | GaussianStats, fake: ArrayLike | Tensor | GaussianStats) -> float:
    """‖m - m'‖² + Tr(C + C' - 2 (C C')^½), m and C the mean and covariance of each set (Heusel et al. 2017, eq. 6).

    real, fake: features (N, F) and (M, F), or their `GaussianStats`.

    With C = Rᵀ R and C' = R'ᵀ R' the eigenvalues of (C C')^½ are the singular values of R R'ᵀ. So no matrix's root is
    taken: nothing turns complex, and singular covariances lose no digits. It is a squared distance, 0 for equal sets.

    Raises:
        ValueError: for NaN or Inf, fewer than 2 samples, or sets that differ in F.

    >>> frechet_distance([[0.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [3.0, 6.0]])
    25.0
    """
    a, b = (x if isinstance(x, GaussianStats) else GaussianStats(x) for x in (real, fake))
    same_features(a, b)
    r, s = a.root, b.root
    between_means = np.square(a.mean - b.mean).sum()
    shared = np.linalg.svd(r @ s.T, compute_uv=False).sum()  # Tr (C C')^½
    between_spreads = np.square(r).sum() + np.square(s).sum() - 2 * shared
    return float(between_means + max(between_spreads, 0))  # of equal sets, rounding may leave less than 0


def matrix(features: ArrayLike | Tensor) -> Array:
    """(N, F) in float64, or ValueError."""
    x = np.asarray(array(features), dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected features of shape (N, F), N and F at least 1, got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = (~np.isfinite(x)).any(axis=1)
        raise ValueError(f"{bad.sum()} of {len(x)} rows of features hold NaN or Inf, the first is row {bad.argmax()}")
    return x


def shortened(factor: Array, rows: int | None = None) -> Array:
    """A factor R of the same Rᵀ R, with F rows if it has more than `rows`, which is 2 F so that sums seldom need it."""
    features = factor.shape[1]
    if len(factor) <= (2 * features if rows is None else rows):
        return factor
    return np.asarray(np.linalg.qr(factor, mode="r"))


def same_features(a: GaussianStats, b: GaussianStats) -> None:
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"the two sets have {len(a.mean)} and {len(b.mean)} features per sample: take both from the same layer of "
            "the same network"
        )
