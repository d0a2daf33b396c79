"""Images in one or more `.npy` files, read from disk by index: the set may be larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from io import FileIO
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .npy import read_header
from .regular import open_regular

__all__ = ["Shards"]


class Shards:
    """Images of several `.npy` files, each uint8 (n, C, H, W), concatenated as one array (N, C, H, W).

    Indexing by integers reads only these images, with plain reads. A memory map would have three drawbacks: its pages
    count as this process's memory until the system needs them; it reads 32 pages around each page in use; and a failing
    disk kills the process, where a read raises. A file is open only while it is read. So there may be more files than a
    process may open, and a copy of this object works in another process.

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
        self.paths = [path.absolute() for path in paths]
        self._headers, counts = [], []
        shape: tuple[int, ...] = ()
        for path in paths:
            with open_regular(path) as file:
                images = read_header(file, path.stat().st_size, path.name)
            if len(images.shape) != 4 or 0 in images.shape or images.dtype != np.uint8 or images.fortran:
                order = " in Fortran's order" if images.fortran else ""
                raise ValueError(
                    f"{path.name} should hold uint8 (n, C, H, W), but it holds {images.dtype} {images.shape}{order}"
                )
            shape = shape or images.shape[1:]
            if images.shape[1:] != shape:
                raise ValueError(f"{path.name} holds images {images.shape[1:]}, {paths[0].name} {shape}")
            self._headers.append(images.offset)
            counts.append(images.shape[0])
        self.ends = np.cumsum(counts)
        self.shape: tuple[int, ...] = (sum(counts), *shape)
        self._starts = [0, *self.ends[:-1].tolist()]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.uint8]:
        """(n,) -> (n, C, H, W), read in the order of the disk. Thread-safe."""
        wanted = np.asarray(indices)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"there are images 0 to {len(self) - 1}, asked for {wanted.min()} to {wanted.max()}")
        images = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        size = images[:1].nbytes
        order = np.argsort(wanted, kind="stable")
        shards = np.searchsorted(self.ends, wanted, side="right").tolist()
        for shard, rows in groupby(order.tolist(), key=shards.__getitem__):
            with self.paths[shard].open("rb", buffering=0) as file:
                for row in rows:
                    file.seek(self._headers[shard] + (int(wanted[row]) - self._starts[shard]) * size)
                    fill(memoryview(images[row]).cast("B"), file)
        return images


def fill(into: memoryview, file: FileIO) -> None:
    """Read from `file` until `into` is full."""
    while into:  # a file system may give less than was asked for
        got = file.readinto(into)
        if not got:
            raise OSError(f"{file.name} has become shorter since it was opened")
        into = into[got:]
