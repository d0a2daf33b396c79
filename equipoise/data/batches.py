"""The endless stream of training batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from equipoise.core.types import Batch

from .base import Dataset, DatasetConfig
from .order import stream
from .pixels import to_float
from .reading import read_ahead
from .resident import Resident, resident, to_device

__all__ = ["InfiniteBatches"]


class InfiniteBatches(Iterator[Batch]):
    """One process's share of the endless stream of global batches.

    Global batch k holds the positions start + k batch_size + (0 ... batch_size - 1) of `stream`. Rank r reads the r-th
    of its `world` equal slices. So start = nimg resumes a run exactly, and all ranks together read what one process
    would.

    batch_size: images per global batch; may exceed the size of the data set.
    device: device of the batches, where bytes become floats. A GPU holds all bytes from the start if they fit (see
        `resident`); else batches are copied from pinned memory.
    keep: False never holds the data set on the GPU.

    Yields `Batch` with x (batch_size / world, C, H, W) float32 in [-1, 1] and y int64 or None. A few threads read ahead
    if the data set is slow; `next` raises their errors. `close()`, or the end of a `with` block, stops them.

    Raises:
        ValueError: if `dataset` is another kind of object, batch_size is not a multiple of world, or a number is out of
            range.

    >>> from equipoise.data import Digits
    >>> next(InfiniteBatches(Digits().build(), 64, seed=0)).x.shape
    torch.Size([64, 1, 28, 28])
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        keep: bool = True,
    ):
        require_dataset(dataset)
        if batch_size < 1 or batch_size % world:
            raise ValueError(f"batch_size must be a positive multiple of the {world} processes, got {batch_size}")
        if not 0 <= rank < world or start < 0 or seed < 0:
            raise ValueError(
                f"expected 0 <= rank < world, start >= 0 and seed >= 0, got {rank=}, {world=}, {start=}, {seed=}"
            )
        dataset = resident(dataset, device) if keep else dataset
        length, share, labels = len(dataset), batch_size // world, dataset.labels

        def read(position: int) -> tuple[Tensor, Tensor | None]:
            indices = stream(seed, length, position, position + share)
            if isinstance(dataset, Resident):
                return dataset.take(indices)
            x = torch.from_numpy(dataset.read(indices))
            return x, None if labels is None else torch.from_numpy(labels[indices])

        positions = count(start + rank * share, batch_size)
        self._bytes = read_ahead(read, positions, threads=4 if dataset.slow else 0)
        self._device = torch.device(device)

    def __next__(self) -> Batch:
        x, y = next(self._bytes)
        return Batch(to_float(to_device(x, self._device)), None if y is None else to_device(y, self._device))

    def close(self) -> None:
        self._bytes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_dataset(given: object) -> None:
    """Raise ValueError unless `given` has the interface of `Dataset`."""
    if all(hasattr(given, name) for name in ("read", "spec", "labels", "slow", "__len__")):
        return
    name = type(given).__name__
    if isinstance(given, DatasetConfig):
        fix = f"open it, InfiniteBatches({name}(...).build(), ...)"
    elif isinstance(given, str | Path):
        fix = "open the path, InfiniteBatches(Images(path=...).build(), ...)"
    elif isinstance(given, np.ndarray | Tensor):
        fix = "give the images as uint8 (N, C, H, W) in ArrayDataset(images)"
    elif isinstance(given, DataLoader):
        fix = "wrap the data set that it reads, TorchImages(loader.dataset)"
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        fix = "wrap a torch Dataset of images, TorchImages(dataset)"
    else:
        fix = (
            "wrap a torch Dataset of images in TorchImages, or write a class with the methods of equipoise.data.Dataset"
        )
    raise ValueError(f"InfiniteBatches reads a data set of equipoise.data, and got a {name}: {fix}")
