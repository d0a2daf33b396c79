"""Mean and covariance of features, summed over batches and processes. Small variances keep their digits."""

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
"""Largest rounding error of the variance along any direction, as a fraction of it."""


class GaussianStats:
    """Mean and covariance of features (N, F), in float64. `a + b` has the statistics of the union of two sets.

    So sets larger than memory are summed batch by batch, in any order. Several processes can sum their shares too: the
    object can be pickled (`all_gather_object`). The covariance C has the divisor N - 1. It is stored as a factor R with
    Rᵀ R = (N - 1) C: the root of a singular C, as from fewer samples than features, would lose half of its digits.

    count: N.
    mean: (F,).
    factor: R, (at most 2 F, F).

    Raises:
        ValueError: if the features are not a matrix of finite numbers, or if sets with different F are added.

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
        """Unite two sets (Chan et al. 1983): (N - 1) C of both, plus a term for the distance between their means."""
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
                "a single sample has no covariance: give at least 2 samples, if possible more than features"
            )
        return shortened(self.factor, self.factor.shape[1]) / math.sqrt(self.count - 1)

    @property
    def covariance(self) -> Array:
        """C, (F, F). Raises ValueError if there are fewer than 2 samples."""
        root = self.root
        return root.T @ root


def matrix(features: ArrayLike | Tensor) -> Array:
    """`features` in float64. Raises ValueError unless it is a matrix (N, F) of finite numbers."""
    x = np.asarray(array(features), dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected features of shape (N, F), N and F at least 1, got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = (~np.isfinite(x)).any(axis=1)
        raise ValueError(f"{bad.sum()} of {len(x)} rows of features hold NaN or Inf, the first is row {bad.argmax()}")
    return x


def same_features(a: GaussianStats, b: GaussianStats) -> None:
    """Raise ValueError if the sets differ in F."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"the two sets have {len(a.mean)} and {len(b.mean)} features per sample: take both from the same layer of "
            "the same network"
        )


def shortened(factor: Array, rows: int | None = None) -> Array:
    """An equivalent factor (same Rᵀ R), reduced to F rows if it has more than `rows`.

    rows: None is 2 F, so that sums are seldom reduced.
    """
    features = factor.shape[1]
    if len(factor) <= (2 * features if rows is None else rows):
        return factor
    short = by_cholesky(factor)
    return torch.linalg.qr(torch.from_numpy(factor), mode="r").R.numpy() if short is None else short


def by_cholesky(x: Array) -> Array | None:
    """Upper triangular R with Rᵀ R = xᵀ x, (N, F) -> (F, F), or None if xᵀ x has lost the small variances in rounding.

    It takes a third of the time of the QR decomposition, which loses none. Scaling a feature scales a column of R and
    changes none of its digits, so only the correlations K matter. Rounding moves the variance along a direction by at
    most the fraction eps Tr K⁻¹ (Demmel 1989), up to a factor of about 1. With K = L Lᵀ and normal z,
    Tr K⁻¹ = E ‖L⁻¹ z‖² is estimated from 16 draws.
    """
    squares = x.T @ x
    lengths = np.sqrt(squares.diagonal())
    units = np.where(lengths > 0, lengths, 1)
    correlations = squares / units / units[:, None]
    np.fill_diagonal(correlations, 1)  # also for a constant feature, uncorrelated with all others
    lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(correlations))
    if failed:
        return None
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((len(lengths), 16)))
    trace = float(torch.linalg.solve_triangular(lower, z, upper=False).square().sum()) / 16
    return lower.numpy().T * lengths if trace * EPS <= PRECISION else None
