"""Splits of a data set: images to train on, and images that D never sees in training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Dataset
from .order import permutation

__all__ = ["Subset", "hold_out"]


class Subset:
    """The images of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Dataset, indices: NDArray[np.int64]):
        self.dataset, self.indices = dataset, indices
        self.spec, self.class_names, self.slow = dataset.spec, dataset.class_names, dataset.slow
        self.labels = None if dataset.labels is None else dataset.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.dataset.read(self.indices[indices])


def hold_out(dataset: Dataset, share: float) -> tuple[Dataset, Dataset | None]:
    """Hold out a random `share` of the images, the same ones in every run.

    Returns the images to train on and the held-out images; None instead of the latter for a share of 0.

    Raises:
        ValueError: if `share` leaves no image on one of the sides.
    """
    if share == 0:
        return dataset, None
    cut = round(share * len(dataset))
    if not 0 < cut < len(dataset):
        raise ValueError(
            f"holding out a share of {share:g} of {len(dataset)} images leaves no image on one of the sides: "
            "choose another share"
        )
    order = permutation(0, 0, len(dataset))
    return Subset(dataset, np.sort(order[cut:])), Subset(dataset, np.sort(order[:cut]))
