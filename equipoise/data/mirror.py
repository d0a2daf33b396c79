"""Mirrored images as more data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .base import Dataset

__all__ = ["Mirrored", "mirrored"]


class Mirrored:
    """The n images of `dataset`, then the same mirrored: image n + i is image i with left and right exchanged."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.spec, self.class_names, self.slow = dataset.spec, dataset.class_names, dataset.slow
        self.labels = None if dataset.labels is None else np.tile(dataset.labels, 2)

    def __len__(self) -> int:
        return 2 * len(self.dataset)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        turned, plain = np.divmod(indices, len(self.dataset))
        x = self.dataset.read(plain)
        return np.where(turned.astype(bool)[:, None, None, None], x[..., ::-1], x)


def mirrored(dataset: Dataset, mirror: bool = True) -> Dataset:
    """`dataset` with each image mirrored as one more image: twice the length; `dataset` itself if `mirror` is False.

    >>> from equipoise.data import Digits
    >>> digits = mirrored(Digits().build())
    >>> (digits.read(np.array([10_003])) == digits.read(np.array([3]))[..., ::-1]).all()
    np.True_
    """
    return Mirrored(dataset) if mirror else dataset
