"""Images in a black frame: for networks that need a power of two pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from equipoise.core.types import component

from .base import Dataset, DatasetConfig
from .mnist import Digits

__all__ = ["Padded"]


@component
class Padded(DatasetConfig):
    """The images of `of` in the middle of a black square of `resolution` pixels: 28x28 digits at 32x32.

    An odd difference leaves one more row below and one more column to the right. Black is the byte 0, which is -1 in
    training.
    """

    of: DatasetConfig = Digits()
    resolution: int = Field(default=32, ge=1)

    def build(self) -> Framed:
        """Raises ValueError if the images are larger than `resolution`."""
        return Framed(self.of.build(), self.resolution)


class Framed:
    """The data set `of`, each image in a frame of zeros."""

    def __init__(self, of: Dataset, resolution: int):
        longest = max(of.spec.shape)
        if resolution < longest:
            raise ValueError(
                f"Padded makes images larger: these have {of.spec.size} pixels, and "
                f"resolution={resolution} is smaller. Give a resolution of {longest} or more; Images shrink "
                "with their own setting, Images(path=..., resolution=...)"
            )
        self.of = of
        self.spec = dataclasses.replace(of.spec, resolution=resolution, width=None)
        self.labels, self.class_names, self.slow = of.labels, of.class_names, of.slow
        before = [(resolution - side) // 2 for side in of.spec.shape]
        self.inside = tuple(slice(at, at + side) for at, side in zip(before, of.spec.shape, strict=True))

    def __len__(self) -> int:
        return len(self.of)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n,) -> (n, C, resolution, resolution)."""
        images = np.zeros((len(indices), *self.spec.image), np.uint8)
        images[:, :, *self.inside] = self.of.read(indices)
        return images
