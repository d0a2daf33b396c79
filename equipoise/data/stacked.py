"""Stacked digits: 1,000 modes, to measure mode collapse."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from equipoise.core.types import ImageSpec, component

from .base import Dataset, DatasetConfig
from .mnist import Digits

__all__ = ["StackedDigits"]

CHOICE = 0x57AC
"""Seed of the stacks, so that they are the same in every run."""


@component
class StackedDigits(DatasetConfig):
    """`num` colour images whose red, green and blue are three random images of `of`. Each triple of classes is a mode.

    Ten digits give 1,000 equally frequent modes (Metz et al. 2017, sec. 3.3.1, with MNIST). The images are unlabelled.
    `metrics.stacked_modes` finds the mode of a generated image.
    """

    of: DatasetConfig = Digits()
    num: int = Field(default=50_000, ge=1)

    def build(self) -> Stacked:
        """Raises ValueError unless the images of `of` are grey."""
        return Stacked(self.of.build(), self.num)


class Stacked:
    """The stacked images: image i has the images `parts[i]` of `of` as channels. parts: (num, 3)."""

    spec: ImageSpec
    labels: NDArray[np.int64] | None = None
    class_names: Sequence[str] | None = None
    slow: bool

    def __init__(self, of: Dataset, num: int):
        if of.spec.channels != 1:
            raise ValueError(f"stacks are made of grey images, and these have {of.spec.channels} channels")
        self.of, self.slow = of, of.slow
        self.spec = dataclasses.replace(of.spec, channels=3, num_classes=0)
        self.parts = np.random.default_rng(CHOICE).integers(len(of), size=(num, 3))

    def __len__(self) -> int:
        return len(self.parts)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n,) -> (n, 3, H, W)."""
        parts = self.parts[indices]
        grey = self.of.read(parts.reshape(-1))  # (3 n, 1, H, W)
        return grey.reshape(len(parts), 3, *grey.shape[2:])
