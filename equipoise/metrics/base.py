"""The interface of a metric: it asks two sets of images, and makes numbers of their answers.

A metric is a function and a class of its settings, in one file. `registry` finds it there by its `name`.
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

__all__ = ["Asked", "Found", "Metric", "Needs", "Number", "Samples", "needs"]

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]
Better = Literal["lower", "higher"]
Answers = TypeVarTuple("Answers")


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


class Samples(Protocol):
    """One of the two sets, as a metric asks it. Rows are images, in the same order everywhere.

    Each answer is computed when a metric first asks for it, once, and shared by all of them.
    """

    @property
    def features(self) -> Array:
        """(N, F)."""

    @property
    def stats(self) -> GaussianStats:
        """Mean and covariance of the features."""

    @property
    def probabilities(self) -> Array:
        """(N, K). Raises ValueError if the feature network is no classifier."""

    @property
    def pixels(self) -> Pixels:
        """The images as bytes, (N, H, W, C)."""

    @property
    def labels(self) -> Labels | None:
        """(N,) ids of the classes that were asked for, or None."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels; 0 without labels."""

    @property
    def discriminator(self) -> Asked:
        """D of the run that drew the images. The real images have none."""


class Number(NamedTuple):
    """value: of the generated images.  spread: `Metric.spread` of it.  real: that of `Metric.beside`, to compare."""

    value: float
    spread: float | None = None
    real: float | None = None


class Found(NamedTuple):
    """numbers: by name, as in `Metric.better`.  chosen: what was settled on the way, such as a bandwidth."""

    numbers: dict[str, Number]
    chosen: dict[str, Any]


class Metric(ABC, Generic[*Answers]):
    """Settings of a metric. Equal seeds give equal numbers.

    `ask` says which answers it needs, and `find` computes with them. They are apart, because several processes give
    the answers together, and then share out the metrics.

    name: what `--metrics` calls it.
    better: the names of its numbers, and whether a good generator has them low or high.
    spread: meaning of `Number.spread`, or None.
    beside: what has the number `Number.real`.
    only: the one feature network that it may be asked of, or None.
    """

    name: ClassVar[str]
    better: ClassVar[Mapping[str, Better]]
    spread: ClassVar[str | None] = None
    beside: ClassVar[str] = "real images"
    only: ClassVar[str | None] = None

    @property
    @abstractmethod
    def least(self) -> tuple[int, int]:
        """Number of generated and of real images that it needs."""

    @abstractmethod
    def ask(self, fake: Samples, real: Samples) -> tuple[*Answers]:
        """Its questions to the two sets, of `fake` first. It reads attributes of the sets and does nothing else."""

    @abstractmethod
    def find(self, seed: int, *answers: *Answers) -> Found:
        """Its numbers. Raises ValueError for sets that it cannot compare."""

    def __call__(self, fake: Samples, real: Samples, seed: int) -> Found:
        """`find` with the answers of `ask`."""
        return self.find(seed, *self.ask(fake, real))


class Needs(NamedTuple):
    """The attributes of `Samples` that a metric asks each set for."""

    fake: frozenset[str]
    real: frozenset[str]


def needs(metric: Metric[*tuple[Any, ...]]) -> Needs:
    """What a metric asks for. Known before any image is drawn: `ask` is called with sets that note the questions."""
    fake, real = Questions(), Questions()
    metric.ask(cast("Samples", fake), cast("Samples", real))
    return Needs(frozenset(fake.asked), frozenset(real.asked))


class Questions:
    """Stands for a set of samples, notes what is asked, and answers None."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> None:
        if name not in vars(Samples):
            raise AttributeError(f"a set of samples has no {name!r}")
        self.asked.add(name)
