"""The log-likelihood of data under Gaussians around generated samples (Breuleux et al. 2011; Goodfellow et al. 2014).

An estimate for generators that give samples but no density. In many dimensions it is far from the truth for any number
of samples, and ranks k-means centroids of the training images above real images (Theis et al. 2016).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .arrays import array, shuffled
from .base import Better, Found, Metric, Number, Pixels, Samples, as_points
from .distances import blocks

__all__ = ["parzen_bandwidth", "parzen_log_likelihood"]

Array = NDArray[np.float64]


def parzen_log_likelihood(samples: ArrayLike | Tensor, data: ArrayLike | Tensor, *, bandwidth: float) -> Array:
    """The log-likelihood log 1/S Σ_s N(x; s, σ² I) of each point x of `data`, in nats -> (N,).

    samples, data: points (S, F) and (N, F), images flattened. Published numbers have pixels in [0, 1].
    bandwidth: σ in the same units, chosen by `parzen_bandwidth`.

    Report the mean, with its standard error std / √N. More samples raise it: compare at equal S. Several processes may
    divide `data` and concatenate their results. The S x N distances are never all in memory. Their squares are exact to
    about 1e-15 of the largest ‖x‖², with x measured from the samples' mean.

    Raises:
        ValueError: for NaN or Inf, sets that are not matrices or differ in F, or a bandwidth that is not above 0.

    >>> parzen_log_likelihood([[0.0], [2.0]], [[1.0]], bandwidth=1.0)
    array([-1.41893853])
    """
    each: Array = log_likelihoods(points("samples", samples), points("data", data), [bandwidth])[0]
    return each


def parzen_bandwidth(samples: ArrayLike | Tensor, validation: ArrayLike | Tensor, candidates: Iterable[float]) -> float:
    """The candidate σ that gives `validation` the highest mean log-likelihood.

    samples, validation: as samples and data of `parzen_log_likelihood`. Validation points must differ from the points
        to be measured, and from the data behind the samples, for which σ = 0 would be best.
    candidates: such as ``np.geomspace(0.02, 1, 20)``, for pixels in [0, 1].

    Warns if the best is the smallest or largest of several candidates, because a better one may lie beyond.

    Raises:
        ValueError: if there are no candidates; also as `parzen_log_likelihood`.

    >>> parzen_bandwidth([[-1.0], [1.0]], [[-1.5], [0.0], [1.5]], [0.1, 0.3, 0.6, 1.0, 3.0])
    0.6
    """
    sigmas = sorted({float(sigma) for sigma in candidates})
    if not sigmas:
        raise ValueError("no candidates to choose a bandwidth from: give some, such as np.geomspace(0.02, 1, 20)")
    means = log_likelihoods(points("samples", samples), points("validation", validation), sigmas).mean(axis=1)
    best = sigmas[int(means.argmax())]
    if len(sigmas) > 1 and best in (sigmas[0], sigmas[-1]):
        side, beyond = ("smallest", best / 10) if best == sigmas[0] else ("largest", best * 10)
        warnings.warn(
            f"the best bandwidth, {best:g}, is the {side} of the candidates: give more, as far as {beyond:g}",
            stacklevel=2,
        )
    return best


def log_likelihoods(samples: Array, data: Array, bandwidths: Sequence[float]) -> Array:
    """Log-likelihoods for each of B bandwidths, (B, N). The distances, most of the work, are computed once."""
    for sigma in bandwidths:
        if not 0 < sigma < math.inf:
            raise ValueError(f"a bandwidth is a standard deviation, finite and above 0; got {sigma:g}")
    if samples.shape[1] != data.shape[1]:
        raise ValueError(
            f"the samples have {samples.shape[1]} numbers per point and the data {data.shape[1]}: give both as images "
            "of the same size and channels"
        )
    logsums: Array = np.empty((len(bandwidths), len(data)))
    for rows, squares in blocks(data, samples):
        nearest = squares.min(axis=1)
        squares -= nearest[:, None]
        for sums, sigma in zip(logsums, bandwidths, strict=True):
            terms = squares / (-2 * sigma**2)
            sums[rows] = np.log(np.exp(terms, out=terms).sum(axis=1)) - nearest / (2 * sigma**2)
    volumes = samples.shape[1] * np.log(math.sqrt(2 * math.pi) * np.array(bandwidths))
    return np.asarray(logsums - math.log(len(samples)) - volumes[:, None])


def points(name: str, values: ArrayLike | Tensor) -> Array:
    """`values` in float64. Raises ValueError unless they are finite points (N, F)."""
    x = np.asarray(array(values), dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(
            f"expected {name} as points of shape (N, F), N and F at least 1, got shape {x.shape}; images are flattened "
            "by x.reshape(len(x), -1)"
        )
    if not np.isfinite(x).all():
        bad = (~np.isfinite(x)).any(axis=1)
        raise ValueError(f"{bad.sum()} of {len(x)} points of {name} hold NaN or Inf, the first is point {bad.argmax()}")
    return x


@component
class Parzen(Metric[Pixels, Pixels]):
    """Mean log-likelihood of real images, in nats, under Gaussians around generated ones (Goodfellow et al. 2014).

    Pixels are in [0, 1]. Other real images choose the bandwidth.

    validation: number of random real images that choose the bandwidth.
    test: most other real images to measure.
    low, high, candidates: smallest and largest bandwidth to choose from, and their number, in geometric steps.
    """

    name: ClassVar[str] = "parzen"
    better: ClassVar[Mapping[str, Better]] = {"parzen": "higher"}
    spread: ClassVar[str | None] = "standard error over test images"

    validation: int = Field(default=500, ge=1)
    test: int = Field(default=10_000, ge=1)
    low: float = Field(default=0.02, gt=0)
    high: float = Field(default=1.0, gt=0)
    candidates: int = Field(default=16, ge=1)

    @property
    def least(self) -> tuple[int, int]:
        return 1, self.validation + 1

    def ask(self, fake: Samples, real: Samples) -> tuple[Pixels, Pixels]:
        return fake.pixels, real.pixels

    def find(self, seed: int, fake: Pixels, real: Pixels) -> Found:
        samples, points = as_points(fake, real)
        points = shuffled(points, seed)[: self.validation + self.test]
        validation, test = points[: self.validation], points[self.validation :]
        sigma = parzen_bandwidth(samples, validation, np.geomspace(self.low, self.high, self.candidates))
        each = parzen_log_likelihood(samples, test, bandwidth=sigma)
        number = Number(float(each.mean()), float(each.std() / np.sqrt(len(each))))
        return Found({"parzen": number}, {"bandwidth": sigma, "real": len(test)})
