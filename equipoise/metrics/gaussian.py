"""Mean and covariance of features, summed over batches and processes without losing the digits of small variances."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .arrays import array

__all__ = ["GaussianStats", "matrix", "same_features"]

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)

PRECISION = 1e-6
"""How far rounding may move the variance along any direction, as a fraction of it."""


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
        root = self.root
        return root.T @ root


def matrix(features: ArrayLike | Tensor) -> Array:
    """(N, F) in float64, or ValueError."""
    x = np.asarray(array(features), dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected features of shape (N, F), N and F at least 1, got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = (~np.isfinite(x)).any(axis=1)
        raise ValueError(f"{bad.sum()} of {len(x)} rows of features hold NaN or Inf, the first is row {bad.argmax()}")
    return x


def same_features(a: GaussianStats, b: GaussianStats) -> None:
    """Raises ValueError if they differ in F."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"the two sets have {len(a.mean)} and {len(b.mean)} features per sample: take both from the same layer of "
            "the same network"
        )


def shortened(factor: Array, rows: int | None = None) -> Array:
    """A factor R of the same Rᵀ R, with F rows if it has more than `rows`, which is 2 F so that sums seldom need it."""
    features = factor.shape[1]
    if len(factor) <= (2 * features if rows is None else rows):
        return factor
    short = by_cholesky(factor)
    return torch.linalg.qr(torch.from_numpy(factor), mode="r").R.numpy() if short is None else short


def by_cholesky(x: Array) -> Array | None:
    """Upper triangular R with Rᵀ R = xᵀ x, (N, F) -> (F, F), or None if xᵀ x has lost the small variances in rounding.

    In a third of the time of the QR decomposition, which loses none. Scaling a feature scales a column of R and changes
    no digit of it, so it is the correlations K that count: rounding moves the variance along a direction by the
    fraction eps Tr K⁻¹ of it at most (Demmel 1989), but for a factor of about 1, and Tr K⁻¹ = E ‖L⁻¹ z‖² for
    K = L Lᵀ and normal z is estimated from 16 of them.
    """
    squares = x.T @ x
    lengths = np.sqrt(squares.diagonal())
    units = np.where(lengths > 0, lengths, 1)
    correlations = squares / units / units[:, None]
    np.fill_diagonal(correlations, 1)  # that of a constant feature too, which is uncorrelated with all others
    lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(correlations))
    if failed:
        return None
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((len(lengths), 16)))
    trace = float(torch.linalg.solve_triangular(lower, z, upper=False).square().sum()) / 16
    return lower.numpy().T * lengths if trace * EPS <= PRECISION else None
