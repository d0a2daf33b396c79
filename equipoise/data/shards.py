"""Images in one `.npy` file or many, read from disk by index: the set may be larger than memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shards"]


class Shards:
    """The images of `.npy` files, each uint8 (n, C, H, W), one file after the other, as one array (N, C, H, W).

    Indexed by integers, it reads these images and nothing else. By plain reads and no memory map: pages of a map
    count as this process's memory until somebody needs them, a map reads 32 pages around each that is asked for, and
    a disk that fails under a map kills the process where a read raises.

    Raises:
        ValueError: if a file is damaged or differs from the first in dtype or shape.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [Path(folder, name) for name in ("a.npy", "b.npy")]
    ...     for i, path in enumerate(paths):
    ...         np.save(path, np.full((10, 1, 2, 2), i, np.uint8))
    ...     Shards(paths)[[3, 13, 9]][:, 0, 0, 0]
    array([0, 1, 0], dtype=uint8)
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        maps = [np.load(path, mmap_mode="r") for path in paths]  # reads the header and compares the file's size with it
        for path, images in zip(paths, maps, strict=True):
            if images.ndim != 4 or images.dtype != np.uint8 or not images.flags.c_contiguous:
                raise ValueError(f"{path.name} should hold uint8 (n, C, H, W), it holds {images.dtype} {images.shape}")
            if images.shape[1:] != maps[0].shape[1:]:
                raise ValueError(f"{path.name} holds images {images.shape[1:]}, {paths[0].name} {maps[0].shape[1:]}")
        self.ends = np.cumsum([len(images) for images in maps])
        self.shape: tuple[int, ...] = (int(self.ends[-1]), *maps[0].shape[1:])
        self._starts = [0, *self.ends[:-1].tolist()]
        self._headers = [images.offset for images in maps]
        self._files: list[int] = []
        weakref.finalize(self, close, self._files)
        for path in paths:
            self._files.append(os.open(path, os.O_RDONLY))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.uint8]:
        """(n,) -> (n, C, H, W), read in the order of the disk. Safe in several threads."""
        wanted = np.asarray(indices)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"there are images 0 to {len(self) - 1}, asked for {wanted.min()} to {wanted.max()}")
        found = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        size = found[:1].nbytes
        order = np.argsort(wanted, kind="stable")
        shards = np.searchsorted(self.ends, wanted[order], side="right")
        for row, index, shard in zip(order.tolist(), wanted[order].tolist(), shards.tolist(), strict=True):
            at = self._headers[shard] + (index - self._starts[shard]) * size
            read_at(self._files[shard], memoryview(found[row]).cast("B"), at, self.paths[shard])
        return found


def read_at(file: int, into: memoryview, offset: int, path: Path) -> None:
    """Fill `into` from this byte of the file on."""
    done = os.preadv(file, [into], offset)
    while done < len(into):  # a signal, or a file system that gives what it has
        more = os.preadv(file, [into[done:]], offset + done)
        if more == 0:
            raise OSError(f"{path} has become shorter since it was opened")
        done += more


def close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)
