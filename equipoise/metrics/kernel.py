"""The kernel distance between two sets of features (Bińkowski et al. 2018). With Inception's features it is the KID.

Unlike the Fréchet distance it has an unbiased estimate, so results for sets of different sizes compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .base import Better, Found, Metric, Number, Samples
from .gaussian import matrix

__all__ = ["KernelDistance", "kernel_distance", "mmd2"]

Array = NDArray[np.float64]


class KernelDistance(NamedTuple):
    """Mean and standard deviation over subsets, ddof 0. Choosing subsets gives the mean an error of std / √subsets."""

    mean: float
    std: float


def mmd2(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """The squared maximum mean discrepancy of k(a, b) = (<a, b>/F + 1)³, unbiased (Gretton et al. 2012, eq. 3).

    mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j), x (N, F), y (M, F). For two samples of
    one distribution its expectation is 0, so it is negative about half of the time.

    Raises:
        ValueError: for NaN or Inf, fewer than 2 samples, or sets that differ in F.
    """
    x, y = pair(x, y)
    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def kernel_distance(
    real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """`mmd2` of random subsets, drawn without replacement from each set: mean and standard deviation.

    real, fake: features (N, F) and (M, F).
    subsets, subset_size: published numbers use 100 subsets of 1,000. A subset has at most N and M samples.

    Raises:
        ValueError: as `mmd2`, and if a set has fewer samples than a subset.

    >>> kernel_distance([[0.0], [0.0]], [[1.0], [1.0]], subsets=3, subset_size=2)
    KernelDistance(mean=7.0, std=0.0)
    """
    x, y = pair(real, fake)
    if subsets < 1:
        raise ValueError(f"expected at least one subset, got subsets={subsets}")
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise ValueError(
            f"subset_size={subset_size} must be at least 2 and at most the number of samples, and there are {len(x)} "
            f"real and {len(y)} generated ones: give more samples or a smaller subset"
        )
    rng = np.random.default_rng(seed)
    distances = [
        mmd2(x[rng.choice(len(x), subset_size, replace=False)], y[rng.choice(len(y), subset_size, replace=False)])
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(distances)), float(np.std(distances)))


def kernel(x: Array, y: Array) -> Array:
    """(N, M)."""
    k: Array = x @ y.T / x.shape[1] + 1
    return k * k * k


def within(x: Array) -> float:
    """mean_{i≠j} k(x_i, x_j)."""
    k = kernel(x, x)
    return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))


def pair(x: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Array, Array]:
    """Both sets as float64 matrices. Raises ValueError if they differ in F or have fewer than 2 samples."""
    a, b = matrix(x), matrix(y)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"the two sets have {a.shape[1]} and {b.shape[1]} features per sample: take both from the same layer of "
            "the same network"
        )
    if min(len(a), len(b)) < 2:
        raise ValueError(f"expected at least 2 samples of each, got {len(a)} and {len(b)}")
    return a, b


@component
class Kernel(Metric[Array, Array]):
    """Squared MMD of a cubic kernel, mean over random subsets (Bińkowski et al. 2018). Unbiased: it may be negative."""

    name: ClassVar[str] = "kid"
    better: ClassVar[Mapping[str, Better]] = {"kid": "lower"}
    spread: ClassVar[str | None] = "standard deviation over subsets"

    subsets: int = Field(default=100, ge=1)
    subset_size: int = Field(default=1000, ge=2)

    @property
    def least(self) -> tuple[int, int]:
        return self.subset_size, self.subset_size

    def ask(self, fake: Samples, real: Samples) -> tuple[Array, Array]:
        return fake.features, real.features

    def find(self, seed: int, fake: Array, real: Array) -> Found:
        mean, std = kernel_distance(real, fake, subsets=self.subsets, subset_size=self.subset_size, seed=seed)
        return Found({"kid": Number(mean, std)}, {})
