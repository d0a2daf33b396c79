"""The metrics of `equipoise evaluate` by name, each with its settings: numbers of generated images beside real ones.

The functions are those of `metrics`; here stand their defaults, how many images they need, and which way is better. Two
ask the discriminator of the run that the images are of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component

from .classes import class_agreement, effective_classes, mean_top_probability
from .frechet import frechet_distance
from .gaussian import GaussianStats
from .inception_score import inception_score
from .judge import digits_judge
from .kernel import kernel_distance
from .modes import count_modes, stacked_modes
from .neighbours import density_coverage, nearest_neighbours, precision_recall
from .parzen import parzen_bandwidth, parzen_log_likelihood
from .sliced import sliced_wasserstein

__all__ = ["Found", "Measure", "Number", "Samples"]

Array = NDArray[np.float64]
Better = Literal["lower", "higher"]
Reads = Literal["features", "probabilities", "pixels", "discriminator"]
Neighbours = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(gt=0)]


class Asked(Protocol):
    """The discriminator of a run, as a metric asks it.

    estimates: the distance that its mean logits estimate, or None; see `GANLoss.estimates`.
    reads_labels: whether it reads the class of an image.
    settings, loss: its own and those of its loss, as text, for messages.
    spec: of the run's data.  nimg: real images that it had seen.
    lod: level of detail of the real images that it was shown last.
    lipschitz: a bound of its Lipschitz constant, or None where none is known.

    Images are uint8 (n, H, W, C).
    """

    @property
    def estimates(self) -> str | None: ...

    @property
    def reads_labels(self) -> bool: ...

    @property
    def settings(self) -> str: ...

    @property
    def loss(self) -> str: ...

    @property
    def spec(self) -> ImageSpec: ...

    @property
    def nimg(self) -> int: ...

    @property
    def lod(self) -> float: ...

    @property
    def lipschitz(self) -> float | None: ...

    def body(self, *, trained: bool = True) -> nn.Module:
        """The layers before the head, of D or of an untrained one of the same settings."""

    def features(self, images: NDArray[np.uint8], *, trained: bool = True) -> NDArray[np.float64]:
        """The max-pooled maps of its convolutions, (n, F)."""

    def logits(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, *, lod: float = 0) -> Tensor:
        """The mean logit of each image, (n,) float64; images are brought to this level of detail first."""


class Samples(NamedTuple):
    """One of the two sets, as a metric sees it; rows are images, in the same order everywhere.

    stats: mean and covariance of the features.
    features: (N, F).
    probabilities: (N, K), or None if the feature network is no classifier.
    images: uint8 (N, H, W, C), or None if no metric of the evaluation reads pixels.
    labels: (N,) ids of the classes that were asked for, or None.
    num_classes: how many there are of these; 0 for none.
    discriminator: of the run that drew the images, or None if no metric of the evaluation asks it.
    """

    stats: GaussianStats
    features: Array
    probabilities: Array | None = None
    images: NDArray[np.uint8] | None = None
    labels: NDArray[np.int64] | None = None
    num_classes: int = 0
    discriminator: Asked | None = None


class Number(NamedTuple):
    """value: of the generated images.  spread: `Measure.spread` of it.  real: that of `Measure.beside`, to compare."""

    value: float
    spread: float | None = None
    real: float | None = None


class Found(NamedTuple):
    """numbers: by name, as in `Measure.better`.  chosen: what was settled on the way, such as a bandwidth."""

    numbers: dict[str, Number]
    chosen: dict[str, Any]


class Measure(ABC):
    """Settings of a metric. Equal seeds give equal numbers.

    better: the names of its numbers, and whether a good generator has them low or high.
    spread: what `Number.spread` is, or None.
    beside: what has the number `Number.real`.
    only: the one feature network that it may be asked of, or None.
    """

    better: ClassVar[Mapping[str, Better]]
    spread: ClassVar[str | None] = None
    beside: ClassVar[str] = "real images"
    only: ClassVar[str | None] = None

    @property
    @abstractmethod
    def reads(self) -> Reads:
        """What it is computed from."""

    @property
    @abstractmethod
    def least(self) -> tuple[int, int]:
        """How many generated and how many real images it needs."""

    @abstractmethod
    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        """Raises ValueError for sets that it cannot compare."""


@component
class Frechet(Measure):
    """Fréchet distance of the features: `metrics.frechet_distance` to all real images."""

    better: ClassVar[Mapping[str, Better]] = {"frechet": "lower"}
    reads: ClassVar[Reads] = "features"
    least: ClassVar[tuple[int, int]] = (2, 2)

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:  # noqa: ARG002
        return Found({"frechet": Number(frechet_distance(real.stats, fake.stats))}, {})


@component
class FID(Measure):
    """The Fréchet distance by the name that it has with the features of the Inception network, and with no others."""

    better: ClassVar[Mapping[str, Better]] = {"fid": "lower"}
    reads: ClassVar[Reads] = "features"
    least: ClassVar[tuple[int, int]] = (2, 2)
    only: ClassVar[str | None] = "inception"

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:  # noqa: ARG002
        return Found({"fid": Number(frechet_distance(real.stats, fake.stats))}, {})


@component
class Kernel(Measure):
    """Kernel distance of the features: `metrics.kernel_distance`."""

    better: ClassVar[Mapping[str, Better]] = {"kid": "lower"}
    spread: ClassVar[str | None] = "standard deviation over subsets"
    reads: ClassVar[Reads] = "features"

    subsets: int = Field(default=100, ge=1)
    subset_size: int = Field(default=1000, ge=2)

    @property
    def least(self) -> tuple[int, int]:
        return self.subset_size, self.subset_size

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        mean, std = kernel_distance(
            real.features, fake.features, subsets=self.subsets, subset_size=self.subset_size, seed=seed
        )
        return Found({"kid": Number(mean, std)}, {})


@component
class Inception(Measure):
    """Inception Score: `metrics.inception_score` of the images in random order, and of as many real ones."""

    better: ClassVar[Mapping[str, Better]] = {"inception_score": "higher"}
    spread: ClassVar[str | None] = "standard deviation over splits"
    reads: ClassVar[Reads] = "probabilities"

    splits: int = Field(default=10, ge=1)

    @property
    def least(self) -> tuple[int, int]:
        return self.splits, self.splits

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        p, q = shuffled(known(fake), seed), shuffled(known(real), seed)[: len(fake.features)]
        mean, std = inception_score(p, self.splits)
        return Found({"inception_score": Number(mean, std, inception_score(q, self.splits)[0])}, {"real": len(q)})


@component
class PrecisionRecall(Measure):
    """`metrics.precision_recall` of equally many generated and real images."""

    better: ClassVar[Mapping[str, Better]] = {"precision": "higher", "recall": "higher"}
    reads: ClassVar[Reads] = "features"

    k: Neighbours = 3

    @property
    def least(self) -> tuple[int, int]:
        return self.k + 1, self.k + 1

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        x, y = equal(real.features, fake.features, seed)
        precision, recall = precision_recall(x, y, k=self.k)
        return Found({"precision": Number(precision), "recall": Number(recall)}, {"generated": len(y), "real": len(x)})


@component
class DensityCoverage(Measure):
    """`metrics.density_coverage` of equally many generated and real images."""

    better: ClassVar[Mapping[str, Better]] = {"density": "higher", "coverage": "higher"}
    reads: ClassVar[Reads] = "features"

    k: Neighbours = 5

    @property
    def least(self) -> tuple[int, int]:
        return self.k + 1, self.k + 1

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        x, y = equal(real.features, fake.features, seed)
        density, coverage = density_coverage(x, y, k=self.k)
        return Found({"density": Number(density), "coverage": Number(coverage)}, {"generated": len(y), "real": len(x)})


@component
class Sliced(Measure):
    """Sliced Wasserstein distance of the features: `metrics.sliced_wasserstein`."""

    better: ClassVar[Mapping[str, Better]] = {"sliced_wasserstein": "lower"}
    reads: ClassVar[Reads] = "features"
    least: ClassVar[tuple[int, int]] = (2, 2)

    p: float = Field(default=2.0, ge=1)
    projections: int = Field(default=200, ge=1)

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        distance = sliced_wasserstein(real.features, fake.features, p=self.p, projections=self.projections, seed=seed)
        return Found({"sliced_wasserstein": Number(distance)}, {})


@component
class Parzen(Measure):
    """Mean log-likelihood of real images under Gaussians around the generated ones, in nats, pixels in [0, 1].

    validation: real images, drawn at random, that choose the bandwidth.
    test: at most so many of the others are what is measured.
    low, high, candidates: the bandwidths to choose from, in geometric steps.
    """

    better: ClassVar[Mapping[str, Better]] = {"parzen": "higher"}
    spread: ClassVar[str | None] = "standard error over test images"
    reads: ClassVar[Reads] = "pixels"

    validation: int = Field(default=500, ge=1)
    test: int = Field(default=10_000, ge=1)
    low: float = Field(default=0.02, gt=0)
    high: float = Field(default=1.0, gt=0)
    candidates: int = Field(default=16, ge=1)

    @property
    def least(self) -> tuple[int, int]:
        return 1, self.validation + 1

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        samples, points = (pixels(x).reshape(len(x.features), -1) / 255 for x in (fake, real))
        points = shuffled(points, seed)[: self.validation + self.test]
        validation, test = points[: self.validation], points[self.validation :]
        sigma = parzen_bandwidth(samples, validation, np.geomspace(self.low, self.high, self.candidates))
        found = parzen_log_likelihood(samples, test, bandwidth=sigma)
        number = Number(float(found.mean()), float(found.std() / np.sqrt(len(found))))
        return Found({"parzen": number}, {"bandwidth": sigma, "real": len(test)})


@component
class Nearest(Measure):
    """Distance of generated images to the nearest real one, and the share that is learned by heart.

    Learned by heart is an image whose nearest real one is at most `ratio` times as far as the second nearest (Yoon et
    al. 2023). Beside both stands what random real images have among the others.

    space: distances of features, or of pixels in [0, 1].
    queries: at most so many real images are looked up among the others.
    """

    better: ClassVar[Mapping[str, Better]] = {"nearest": "lower", "memorised": "lower"}

    space: Literal["features", "pixels"] = "features"
    ratio: float = Field(default=1 / 3, gt=0, lt=1)
    queries: int = Field(default=2000, ge=1)

    @property
    def reads(self) -> Reads:
        return self.space

    @property
    def least(self) -> tuple[int, int]:
        return 1, 3

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        y, x = self.points(fake), self.points(real)
        own = shuffled(x, seed)[: self.queries]
        found = nearest_neighbours(y, x, k=2).distances
        others = nearest_neighbours(own, x, k=3).distances[:, 1:]  # the first is the image itself
        means = [float(d[:, 0].mean()) for d in (found, others)]
        shares = [float((d[:, 0] <= self.ratio * d[:, 1]).mean()) for d in (found, others)]
        return Found(
            {"nearest": Number(means[0], None, means[1]), "memorised": Number(shares[0], None, shares[1])},
            {"queries": len(own)},
        )

    def points(self, of: Samples) -> Array:
        return of.features if self.space == "features" else pixels(of).reshape(len(of.features), -1) / 255


@component
class Classes(Measure):
    """Over how many classes the images spread, how sure the classifier is, and how often it names the one asked for."""

    better: ClassVar[Mapping[str, Better]] = {
        "effective_classes": "higher",
        "top_probability": "higher",
        "agreement": "higher",
    }
    reads: ClassVar[Reads] = "probabilities"
    least: ClassVar[tuple[int, int]] = (1, 1)

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:  # noqa: ARG002
        p, q = known(fake), known(real)
        numbers = {
            "effective_classes": Number(effective_classes(p), None, effective_classes(q)),
            "top_probability": Number(mean_top_probability(p), None, mean_top_probability(q)),
        }
        agreements = [
            None if of.labels is None or of.num_classes != r.shape[1] else class_agreement(r, of.labels)
            for of, r in ((fake, p), (real, q))
        ]
        if agreements[0] is not None:
            numbers["agreement"] = Number(agreements[0], None, agreements[1])
        return Found(numbers, {})


@component
class Modes(Measure):
    """Modes of stacked digits, of 1,000, and how unevenly they are hit, by the judge of digits.

    Beside both stands what as many real images have.
    """

    better: ClassVar[Mapping[str, Better]] = {"modes": "higher", "modes_kl": "lower"}
    reads: ClassVar[Reads] = "pixels"
    least: ClassVar[tuple[int, int]] = (1, 1)

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        judge, some = digits_judge(), shuffled(pixels(real), seed)[: len(fake.features)]
        found, of_real = (count_modes(stacked_modes(judge, images), 1000) for images in (pixels(fake), some))
        numbers = {"modes": Number(found.modes, None, of_real.modes), "modes_kl": Number(found.kl, None, of_real.kl)}
        return Found(numbers, {"real": len(some)})


# ---- of the discriminator of a run -----------------------------------------------------------------------------------


def shuffled(x: Any, seed: int) -> Any:
    """The rows of an array in random order."""
    return x[np.random.default_rng(seed).permutation(len(x))]


def equal(real: Array, fake: Array, seed: int) -> tuple[Array, Array]:
    """As many rows of each: all of the smaller set, a random choice of the larger."""
    n = min(len(real), len(fake))
    first, second = (x if len(x) == n else shuffled(x, seed)[:n] for x in (real, fake))
    return first, second


def known(of: Samples) -> Array:
    if of.probabilities is None:
        raise ValueError("the feature network gives no class probabilities: take one that classifies")
    return of.probabilities


def pixels(of: Samples) -> NDArray[np.uint8]:
    assert of.images is not None  # the evaluation keeps them for a metric that reads pixels
    return of.images


def scaled(x: Array, num: int) -> Array:
    """Features (N, F) with mean 0 and variance 1/F over the first `num` rows."""
    mean, std = x[:num].mean(axis=0), x[:num].std(axis=0)
    varies = std > 1e-5 * np.abs(x[:num]).max(axis=0)
    found: Array = (x - mean) * np.where(varies, 1 / np.where(varies, std, 1), 0) / np.sqrt(max(varies.sum(), 1))
    return found


def of_run(fake: Samples) -> Asked:
    assert fake.discriminator is not None  # the evaluation has it for a metric that asks it
    return fake.discriminator
