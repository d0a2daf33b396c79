"""A few images of a data set: for GANs on limited data, and the labelled images of a semi-supervised one."""

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

CHOICE = 0xFE3  # in the place of a run's seed, so that the choice is not the beginning of a run's first epoch


@component
class Few(DatasetConfig):
    """`num` images of the data set `of`, as many of each class as of any other, and the same ones in every run.

    The choice does not depend on the run's seed, and a larger `num` adds to it.
    """

    of: DatasetConfig = Digits()
    num: int = Field(default=500, ge=1)

    def build(self) -> Subset:
        """Raises ValueError if the data set has fewer images."""
        return few(self.of.build(), self.num)


def few(dataset: Dataset, num: int) -> Subset:
    """The first `num` images of `dataset` in a fixed random order that takes one of each class in turn.

    So the classes' counts differ by at most 1, unless a class is used up. Without labels, in a fixed random order.

    Raises:
        ValueError: unless there are that many images, and at least one is asked for.

    >>> from equipoise.data import Digits
    >>> np.bincount(few(Digits().build(), 100).labels)
    array([10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    if not 1 <= num <= len(dataset):
        raise ValueError(f"cannot choose {num} images of a data set of {len(dataset)}: ask for 1 to {len(dataset)}")
    order = permutation(CHOICE, 0, len(dataset))
    if dataset.labels is not None:
        order = order[np.argsort(turns(dataset.labels[order]), kind="stable")]
    return Subset(dataset, np.sort(order[:num]))  # sorted, as all of it is read fastest in the order of the disk


def turns(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the same class come before each, (N,) -> (N,): [3, 3, 1, 3] -> [0, 1, 0, 2]."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.unique(labels, return_counts=True)[1]
    found = np.empty_like(labels)
    found[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found
