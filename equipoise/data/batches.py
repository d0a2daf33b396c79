"""The endless stream of training batches. Its order is a function of (seed, position): nothing to save."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..types import Batch
from .base import Dataset
from .pixels import to_float
from .reading import read_ahead

__all__ = ["InfiniteBatches", "stream"]

DATA_ORDER = 0xDA7A  # keeps this use of a seed apart from every other


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order of an epoch -> (length,).

    Drawn as the ranks of raw bits, whose stream numpy promises never to change; that of its shuffles it may.
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch, DATA_ORDER))).random_raw(length)
    return np.argsort(bits, kind="stable")


def stream(seed: int, length: int, start: int, stop: int) -> NDArray[np.int64]:
    """Which images are at the positions start ... stop - 1 of the endless stream -> (stop - start,).

    Position i lies in epoch i // length, and each epoch is a permutation of range(length), drawn from (seed, epoch).
    """
    epochs = range(start // length, -(-stop // length))
    return np.concatenate(
        [permutation(seed, e, length)[max(start - e * length, 0) : stop - e * length] for e in epochs]
    )


class InfiniteBatches(Iterator[Batch]):
    """One process's share of the endless stream of global batches.

    Global batch k holds the positions start + k batch_size + (0 ... batch_size - 1) of `stream`, and rank r the r-th of
    `world` equal slices of it. So start = nimg continues a run exactly, and the ranks together read what one would.

    batch_size: images per global batch; larger than the data set is fine.
    device: where batches go. To a GPU the bytes travel, from pinned memory, and become floats there.

    Yields `Batch` with x (batch_size / world, C, H, W) float32 in [-1, 1] and y int64 or None. A slow data set is read
    ahead by a few threads; what they raise is raised by `next`. `close()`, or the end of a `with` block, stops them.

    Raises:
        ValueError: if batch_size is not a multiple of world, or a number is out of range.

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
    ):
        if batch_size < 1 or batch_size % world:
            raise ValueError(f"batch_size must be a positive multiple of the {world} processes, got {batch_size}")
        if not 0 <= rank < world or start < 0 or seed < 0:
            raise ValueError(
                f"expected 0 <= rank < world, start >= 0 and seed >= 0, got {rank=}, {world=}, {start=}, {seed=}"
            )
        length, share, labels = len(dataset), batch_size // world, dataset.labels

        def read(position: int) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
            indices = stream(seed, length, position, position + share)
            return dataset.read(indices), None if labels is None else labels[indices]

        positions = count(start + rank * share, batch_size)
        self._arrays = read_ahead(read, positions, threads=4 if dataset.slow else 0)
        self._device = torch.device(device)

    def __next__(self) -> Batch:
        x, y = next(self._arrays)
        return Batch(to_float(self._tensor(x)), None if y is None else self._tensor(y))

    def _tensor(self, array: NDArray[np.uint8] | NDArray[np.int64]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def close(self) -> None:
        self._arrays.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
