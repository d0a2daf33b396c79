"""Metrics by nearest neighbours: precision and recall, density and coverage, and the nearest training images.

The support of a set of features is estimated as the union of balls around its samples. Each ball reaches to the k-th
nearest other sample of the set. Distances are Euclidean, in float64, a block of rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .arrays import equal, shuffled
from .base import Better, Found, Metric, Number, Pixels, Samples, as_points
from .distances import blocks
from .gaussian import matrix
from .kernel import pair

__all__ = [
    "DensityAndCoverage",
    "Neighbours",
    "PrecisionAndRecall",
    "density_coverage",
    "nearest_neighbours",
    "precision_recall",
]

Array = NDArray[np.float64]
Count = Annotated[int, Field(ge=1)]

GROUP = 64
"""Size of the groups of distances whose minima are found first."""


class PrecisionAndRecall(NamedTuple):
    """Fractions. Precision (quality): how much of `fake` is in the support of `real`. Recall (variety): the reverse."""

    precision: float
    recall: float


class DensityAndCoverage(NamedTuple):
    """Density (quality): about 1 for the real distribution, and it may exceed 1. Coverage (variety): a fraction."""

    density: float
    coverage: float


class Neighbours(NamedTuple):
    """The k nearest samples of another set.  indices: (N, k) rows of that set, nearest first.  distances: (N, k)."""

    indices: NDArray[np.int64]
    distances: Array


def precision_recall(real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, k: int = 3) -> PrecisionAndRecall:
    """Precision and recall by k-nearest-neighbour balls (Kynkäänniemi et al. 2019, eq. 1 and 2).

    precision = mean_j [y_j lies in the ball of some x_i], recall = mean_i [x_i lies in the ball of some y_j].

    real, fake: features x (N, F) and y (M, F).

    Both results depend on N and M: compare at equal numbers. An outlier has a large ball and inflates them;
    `density_coverage` does not follow outliers.

    Raises:
        ValueError: for NaN or Inf, sets that differ in F, or a set of at most k samples.
    """
    x, y = pair(real, fake)
    balls_x, balls_y = (squared_radii(samples, k) + slack(x, y) for samples in (x, y))
    covered, precise = [], np.zeros(len(y), dtype=bool)
    for rows, d2 in blocks(x, y):
        precise |= (d2 <= balls_x[rows, None]).any(axis=0)
        covered.append((d2 <= balls_y).any(axis=1))
    return PrecisionAndRecall(float(precise.mean()), float(np.concatenate(covered).mean()))


def density_coverage(real: ArrayLike | Tensor, fake: ArrayLike | Tensor, *, k: int = 5) -> DensityAndCoverage:
    """Density and coverage (Naeem et al. 2020, eq. 5 and 6), from the balls of real samples only.

    density = 1/k mean_j #{i: y_j lies in the ball of x_i}, coverage = mean_i [some y_j lies in the ball of x_i]. For
    two large samples of one distribution and one size, their expectations are 1 and 1 - 1/2^k.

    These balls are open: a sample on the border is outside, as in the authors' code (prdc). The balls of
    `precision_recall` include their border, as in eq. 1 of its paper.

    real, fake: features x (N, F) and y (M, F).

    Raises:
        ValueError: as `precision_recall`.
    """
    x, y = pair(real, fake)
    balls = squared_radii(x, k) - slack(x, y)
    inside, covered = 0, []
    for rows, d2 in blocks(x, y):
        within = d2 < balls[rows, None]
        inside += int(within.sum())
        covered.append(within.any(axis=1))
    return DensityAndCoverage(inside / (k * len(y)), float(np.concatenate(covered).mean()))


def nearest_neighbours(x: ArrayLike | Tensor, among: ArrayLike | Tensor, *, k: int = 1) -> Neighbours:
    """For each row of x (N, F) the k nearest rows of `among` (M, F): has a generator memorised its data?

    Give features or flattened pixels: a memorised image is near in both.

    Raises:
        ValueError: for NaN or Inf, sets that differ in F, or k that is not between 1 and M.

    >>> nearest_neighbours([[0.0], [4.0]], [[1.0], [9.0], [5.0]]).indices
    array([[0],
           [2]])
    """
    a, b = matrix(x), matrix(among)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the two sets have {a.shape[1]} and {b.shape[1]} values per sample: give the same of both")
    if not 1 <= k <= len(b):
        raise ValueError(f"expected k between 1 and the {len(b)} samples to search, got k={k}")
    indices, distances = [], []
    for rows, d2 in blocks(a, b):
        indices.append(smallest(d2, k))
        # Computed anew: rounding in d2 would give a copy a distance above 0.
        distances.append(np.stack([np.linalg.norm(a[rows] - b[column], axis=1) for column in indices[-1].T], axis=1))
    return Neighbours(np.concatenate(indices), np.concatenate(distances))


def slack(x: Array, y: Array) -> float:
    """Largest rounding difference between two computations of one squared distance, as for a sample and its copy."""
    middle = y.mean(axis=0)
    return 1e-13 * max(float(np.square(samples - middle).sum(axis=1).max()) for samples in (x, y))


def squared_radii(x: Array, k: int) -> Array:
    """The squared distance of each sample to its k-th nearest other sample, (N, F) -> (N,)."""
    if not 1 <= k < len(x):
        raise ValueError(f"expected k between 1 and {len(x) - 1}, one less than the samples of each set, got k={k}")
    radii = []
    for rows, d2 in blocks(x, x):
        d2[np.arange(len(d2)), np.arange(len(x))[rows]] = -math.inf  # the sample itself comes first
        last = smallest(d2, k + 1)[:, -1:]
        radii.append(np.maximum(np.take_along_axis(d2, last, axis=1)[:, 0], 0))
    return np.concatenate(radii)


def smallest(d2: Array, k: int) -> NDArray[np.int64]:
    """Columns of the k smallest values of each row, ascending, (n, M) -> (n, k).

    The k smallest values lie in the k groups with the smallest minima. So most values are read only once, to find the
    minimum of each group of 64.
    """
    n, m = d2.shape
    groups = m // GROUP
    columns = np.broadcast_to(np.arange(m), (n, m))
    if groups > k:
        least = d2[:, : groups * GROUP].reshape(n, GROUP, groups).min(axis=1)  # a group is every `groups`-th column
        best = np.argpartition(least, k - 1, axis=1)[:, :k, None]
        columns = np.concatenate(
            [(best + groups * np.arange(GROUP)).reshape(n, -1), columns[:, groups * GROUP :]], axis=1
        )
    values = np.take_along_axis(d2, columns, axis=1)
    least_k = np.argpartition(values, k - 1, axis=1)[:, :k]
    order = np.take_along_axis(values, least_k, axis=1).argsort(axis=1, kind="stable")
    return np.take_along_axis(columns, np.take_along_axis(least_k, order, axis=1), axis=1)


class InBalls(Metric[Array, Array]):
    """A metric of balls around features, which reach to the k-th neighbour."""

    k: int

    @property
    def least(self) -> tuple[int, int]:
        return self.k + 1, self.k + 1

    def ask(self, fake: Samples, real: Samples) -> tuple[Array, Array]:
        return fake.features, real.features


@component
class PrecisionRecall(InBalls):
    """Share of generated images within balls around real ones, and the reverse (Kynkäänniemi et al. 2019).

    Balls reach to the k-th neighbour. Both sets have equal numbers of images.
    """

    name: ClassVar[str] = "pr"
    better: ClassVar[Mapping[str, Better]] = {"precision": "higher", "recall": "higher"}

    k: Count = 3

    def find(self, seed: int, fake: Array, real: Array) -> Found:
        x, y = equal(real, fake, seed)
        precision, recall = precision_recall(x, y, k=self.k)
        return Found({"precision": Number(precision), "recall": Number(recall)}, {"generated": len(y), "real": len(x)})


@component
class DensityCoverage(InBalls):
    """Number of balls around real images that hold a generated one, and share of balls with any (Naeem et al. 2020).

    Balls reach to the k-th neighbour. Both sets have equal numbers of images. As in the authors' code, an image on a
    ball's border is outside; for `pr` it is inside.
    """

    name: ClassVar[str] = "dc"
    better: ClassVar[Mapping[str, Better]] = {"density": "higher", "coverage": "higher"}

    k: Count = 5

    def find(self, seed: int, fake: Array, real: Array) -> Found:
        x, y = equal(real, fake, seed)
        density, coverage = density_coverage(x, y, k=self.k)
        return Found({"density": Number(density), "coverage": Number(coverage)}, {"generated": len(y), "real": len(x)})


@component
class Nearest(Metric[Array | Pixels, Array | Pixels]):
    """Mean distance to the nearest real image, and the share of memorised images (Yoon et al. 2023).

    An image is memorised if its nearest real image is at most `ratio` times as far as the second nearest. The numbers
    beside both are for random real images among the others.

    space: distances of features, or of pixels in [0, 1].
    queries: most real images to look up among the others.
    """

    name: ClassVar[str] = "nearest"
    better: ClassVar[Mapping[str, Better]] = {"nearest": "lower", "memorised": "lower"}

    space: Literal["features", "pixels"] = "features"
    ratio: float = Field(default=1 / 3, gt=0, lt=1)
    queries: int = Field(default=2000, ge=1)

    @property
    def least(self) -> tuple[int, int]:
        return 1, 3

    def ask(self, fake: Samples, real: Samples) -> tuple[Array | Pixels, Array | Pixels]:
        return (fake.features, real.features) if self.space == "features" else (fake.pixels, real.pixels)

    def find(self, seed: int, fake: Array | Pixels, real: Array | Pixels) -> Found:
        y, x = (fake, real) if self.space == "features" else as_points(fake, real)
        queries = shuffled(x, seed)[: self.queries]
        of_fake = nearest_neighbours(y, x, k=2).distances
        of_real = nearest_neighbours(queries, x, k=3).distances[:, 1:]  # the first is the image itself
        means = [float(d[:, 0].mean()) for d in (of_fake, of_real)]
        shares = [float((d[:, 0] <= self.ratio * d[:, 1]).mean()) for d in (of_fake, of_real)]
        return Found(
            {"nearest": Number(means[0], None, means[1]), "memorised": Number(shares[0], None, shares[1])},
            {"queries": len(queries)},
        )
