"""The interface of a metric: it asks two sets of images for data, and computes numbers from the answers.

A metric is a function and a class of settings, in one file. `registry` finds the class by its `name`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVarTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from equipoise.core.types import ImageSpec

from .gaussian import GaussianStats

__all__ = ["Asked", "AskedGenerator", "Distance", "Found", "Metric", "Needs", "Number", "Samples", "as_points", "needs"]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Better = Literal["lower", "higher"]
Answers = TypeVarTuple("Answers")


class Asked(Protocol):
    """The interface of a run's discriminator to metrics.

    estimates: the distance that its mean logits estimate, or None; see `GANLoss.estimates`.
    reads_labels: whether it reads the class of an image.
    settings: settings of D as text, for messages.
    loss: settings of its loss as text, for messages.
    spec: spec of the run's data.
    nimg: real images that it has seen.
    lod: level of detail of the last real images that it saw.
    lipschitz: upper bound on its Lipschitz constant, or None if no bound is known.

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
        """The layers before the head. trained: False takes an untrained D with the same settings."""

    def features(self, images: NDArray[np.uint8], *, trained: bool = True) -> NDArray[np.float64]:
        """Max-pooled maps of its convolutions, (n, F)."""

    def logits(self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, *, lod: float = 0) -> Tensor:
        """The mean logit of each image, (n,) float64. Images are first reduced to the level of detail `lod`."""


class AskedGenerator(Protocol):
    """The interface of a generator to metrics.

    settings: settings of G as text, for messages.
    spec: spec of its images and of the classes that it reads.
    styled: whether it has a space of styles: `mapping` and `synthesis`.
    path: default path between two z, "spherical" or "linear".
    """

    @property
    def settings(self) -> str: ...

    @property
    def spec(self) -> ImageSpec: ...

    @property
    def styled(self) -> bool: ...

    @property
    def path(self) -> str: ...

    def network(self) -> nn.Module:
        """A copy of G in eval mode, whose buffers a metric may change."""

    def latents(self, num: int, seed: int) -> tuple[Tensor, Tensor | None]:
        """Z (num, z_dim), as the generator is sampled, and classes (num,) in turn or None; on the CPU."""


class Distance(Protocol):
    """The feature network of an evaluation, for metrics that compare images of their own.

    name: name that it was requested by.
    """

    @property
    def name(self) -> str: ...

    def of_floats(self, x: Tensor) -> Tensor:
        """Features (n, F) float64 of images (n, C, H, W) in [-1, 1], which are not rounded to bytes."""


class Samples(Protocol):
    """The interface of a set of images to metrics. Rows are images, in the same order everywhere.

    Each property is computed once, when a metric first asks for it, and shared by all metrics.
    """

    @property
    def features(self) -> Array:
        """(N, F)."""

    @property
    def stats(self) -> GaussianStats:
        """Mean and covariance of the features."""

    @property
    def probabilities(self) -> Array:
        """(N, K). Raises ValueError if the feature network is not a classifier."""

    @property
    def pixels(self) -> Pixels:
        """The images as bytes, (N, H, W, C)."""

    @property
    def labels(self) -> Labels | None:
        """(N,) ids of the classes that the images should show, or None."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels; 0 without labels."""

    @property
    def discriminator(self) -> Asked:
        """D of the run that generated the images. Real images have none."""

    @property
    def generator(self) -> AskedGenerator:
        """G that draws the images. Real images have none."""

    @property
    def network(self) -> Distance:
        """The feature network itself."""


class Number(NamedTuple):
    """A result of a metric.

    value: the number for the generated images.
    spread: its uncertainty, as `Metric.spread` defines it, or None.
    real: the same number for `Metric.beside`, to compare with; or None.
    """

    value: float
    spread: float | None = None
    real: float | None = None


class Found(NamedTuple):
    """Results of a metric.

    numbers: by name, as in `Metric.better`.
    chosen: values settled during the computation, such as a bandwidth.
    """

    numbers: dict[str, Number]
    chosen: dict[str, Any]


class Metric(ABC, Generic[*Answers]):
    """Settings of a metric. Equal seeds give equal numbers.

    `ask` gets the data that the metric needs, and `find` computes with it. The two are separate because several
    processes compute the data together, and then divide the metrics among themselves.

    name: name of the metric for `--metrics`.
    better: names of its numbers, and whether lower or higher is better.
    spread: meaning of `Number.spread`, or None.
    beside: the images or networks that `Number.real` is for.
    only: name of the only feature network that the metric allows, or None for any.
    """

    name: ClassVar[str]
    better: ClassVar[Mapping[str, Better]]
    spread: ClassVar[str | None] = None
    beside: ClassVar[str] = "real images"
    only: ClassVar[str | None] = None

    @property
    @abstractmethod
    def least(self) -> tuple[int, int]:
        """Least numbers of generated and of real images."""

    def directions(self, features: str) -> dict[str, Better]:
        """Full names of the numbers for this feature network, and whether lower or higher is better."""
        return {name + self.suffix(features): way for name, way in self.better.items()}

    def suffix(self, features: str) -> str:  # noqa: ARG002
        """End of the names of the numbers: empty, unless a name says which feature network was asked."""
        return ""

    @abstractmethod
    def ask(self, fake: Samples, real: Samples) -> tuple[*Answers]:
        """Read attributes of the two sets, and do nothing else. -> the answers that `find` takes."""

    @abstractmethod
    def find(self, seed: int, *answers: *Answers) -> Found:
        """Compute the numbers. Raises ValueError for sets that the metric cannot compare."""

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        """Call `find` with the answers of `ask`."""
        return self.find(seed, *self.ask(fake, real))


def as_points(fake: NDArray[Any], real: NDArray[Any]) -> tuple[Array, Array]:
    """Two sets of images, uint8 (n, H, W, C), as points (n, F) in [0, 1].

    Raises:
        ValueError: for images of equally many numbers in another order, as 24x16 and 16x24 pixels.
    """
    if fake.shape[1:] != real.shape[1:] and fake[0].size == real[0].size:
        sizes = (f"{shape[2]}x{shape[1]}" for shape in (fake.shape, real.shape))
        raise ValueError(f"the two sets have images of {' and '.join(sizes)} pixels: give the same shape of both")
    y, x = (images.reshape(len(images), -1) / 255 for images in (fake, real))
    return y, x


class Needs(NamedTuple):
    """Names of the attributes of `Samples` that a metric reads, for each set."""

    fake: frozenset[str]
    real: frozenset[str]


def needs(metric: Metric[*tuple[Any, ...]]) -> Needs:
    """Attributes that a metric reads, before any image is drawn: `ask` is called with sets that only note names."""
    fake, real = Questions(), Questions()
    metric.ask(cast("Samples", fake), cast("Samples", real))
    return Needs(frozenset(fake.asked), frozenset(real.asked))


class Questions:
    """A stand-in for a set of samples: it notes each attribute that is read, and answers None."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> None:
        if name not in vars(Samples):
            raise AttributeError(f"a set of samples has no {name!r}")
        self.asked.add(name)
