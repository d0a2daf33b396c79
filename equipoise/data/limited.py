"""Small subsets of a data set: for GANs on limited data, and for the labelled images of semi-supervised GANs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from equipoise.core.types import component

from .base import Dataset, DatasetConfig
from .mnist import Digits
from .order import permutation
from .split import Subset

__all__ = ["Few", "few"]

CHOICE = 0xFE3  # used as seed, so that the choice is not the beginning of some run's first epoch


@component
class Few(DatasetConfig):
    """`num` images of the data set `of`, balanced over classes, the same in every run.

    The choice does not depend on the run's seed. A larger `num` keeps the images of a smaller one and adds others.
    """

    of: DatasetConfig = Digits()
    num: int = Field(default=500, ge=1)

    def build(self) -> Subset:
        """Raises ValueError if the data set has fewer images."""
        return few(self.of.build(), self.num)


def few(dataset: Dataset, num: int) -> Subset:
    """The first `num` images of `dataset` in a fixed random order that takes one of each class in turn.

    So the classes' counts differ by at most 1, unless a class is used up. Without labels the order is only random.

    Raises:
        ValueError: unless `num` is between 1 and the size of the data set.

    >>> from equipoise.data import Digits
    >>> np.bincount(few(Digits().build(), 100).labels)
    array([10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    if not 1 <= num <= len(dataset):
        raise ValueError(f"cannot choose {num} images of a data set of {len(dataset)}: ask for 1 to {len(dataset)}")
    order = permutation(CHOICE, 0, len(dataset))
    if dataset.labels is not None:
        order = order[np.argsort(turns(dataset.labels[order]), kind="stable")]
    return Subset(dataset, np.sort(order[:num]))  # in the order of the disk, which is fastest to read


def turns(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of earlier images of the same class, for each image, (N,) -> (N,): [3, 3, 1, 3] -> [0, 1, 0, 2]."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    earlier = np.empty_like(labels)
    earlier[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return earlier
