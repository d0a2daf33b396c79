"""Data sets that stay in the memory of the training device."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.core.types import ImageSpec

from .base import Dataset
from .mirror import Mirrored
from .reading import read_ahead

__all__ = ["Resident", "resident"]

SHARE = 0.25
"""Largest share of the device's free memory that images may take."""
PATIENCE = 60.0
"""Longest time to read all images, in seconds."""
CHUNK = 1 << 24


class Resident:
    """A data set with all its bytes on `device`. `take` indexes them there."""

    spec: ImageSpec
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None
    slow: bool = False

    def __init__(self, dataset: Dataset, device: torch.device):
        self.spec, self.labels, self.class_names = dataset.spec, dataset.labels, dataset.class_names
        shape = (len(dataset), *self.spec.image)
        self.device = device
        self.images = torch.empty(shape, dtype=torch.uint8, device=device)
        self.classes = None if self.labels is None else torch.from_numpy(self.labels).to(device)
        step = max(CHUNK // math.prod(shape[1:]), 1)
        starts = range(0, len(dataset), step)
        parts = (np.arange(i, min(i + step, len(dataset))) for i in starts)
        for i, x in zip(starts, read_ahead(dataset.read, parts, threads=4 if dataset.slow else 0), strict=True):
            self.images[i : i + len(x)] = torch.from_numpy(x).to(device)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.take(indices)[0].numpy(force=True)

    def take(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Images (n, C, H, W) uint8 and their labels (n,), on the device. The host does not wait for them."""
        chosen = to_device(torch.from_numpy(indices), self.device)
        return self.images[chosen], None if self.classes is None else self.classes[chosen]


class ResidentMirrored(Resident):
    """`Mirrored` on `device`. The images are held once, and mirrored as they are taken."""

    def __init__(self, dataset: Mirrored, device: torch.device):
        super().__init__(dataset.dataset, device)
        self.labels = dataset.labels

    def __len__(self) -> int:
        return 2 * len(self.images)

    def take(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        turned, plain = np.divmod(indices, len(self.images))
        x, y = super().take(plain)
        which = to_device(torch.from_numpy(turned.astype(bool)), self.device)
        return torch.where(which.view(-1, 1, 1, 1), x.flip(3), x), y


def resident(dataset: Dataset, device: torch.device | str) -> Dataset:
    """`dataset` as a `Resident`, if `device` is a GPU where that pays; else `dataset` itself.

    It pays if the images take at most a quarter of the GPU's free memory, and if reading all of them takes at most a
    minute, estimated from up to 256 images. Batches are the same either way.
    """
    device = torch.device(device)
    if device.type != "cuda" or isinstance(dataset, Resident):
        return dataset
    held = dataset.dataset if isinstance(dataset, Mirrored) else dataset
    size = len(held) * math.prod(held.spec.image)
    if not (fits(size, device) and quick(held)):
        return dataset
    return ResidentMirrored(dataset, device) if isinstance(dataset, Mirrored) else Resident(dataset, device)


def fits(size: int, device: torch.device) -> bool:
    return size <= SHARE * torch.cuda.mem_get_info(device)[0]


def quick(dataset: Dataset) -> bool:
    """Whether all images can be read within `PATIENCE`, estimated from up to 256 evenly spread ones."""
    sample = np.linspace(0, len(dataset) - 1, min(len(dataset), 256)).astype(np.int64)
    start = time.perf_counter()
    dataset.read(sample)
    return (time.perf_counter() - start) * len(dataset) / len(sample) <= PATIENCE


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy `tensor` to `device`; to a GPU from pinned memory, so that the host need not wait."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
