"""IDX, the format of MNIST and its relatives: big-endian sizes, then bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays, Split
from .limits import check_unpacked
from .regular import open_regular

__all__ = ["find_idx", "read_idx", "read_idx_directory"]

PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def find_idx(directory: Path, split: Split, kind: str) -> Path | None:
    """The file of `kind` "images-idx3" or "labels-idx1", gzipped or not. The spelling "images.idx3" works too."""
    stem = f"{PREFIX[split]}-{kind}-ubyte"
    names = (name + suffix for name in (stem, stem.replace("-idx", ".idx")) for suffix in ("", ".gz"))
    return next((directory / name for name in names if (directory / name).is_file()), None)


def read_idx_directory(directory: Path, *, split: Split = "train") -> Arrays | None:
    """Images (N, 1, H, W) and labels (N,) of a split, or None if the directory holds no IDX images.

    Raises:
        ValueError: for images without a labels file, or a file that cannot be read.
    """
    images = find_idx(directory, split, "images-idx3")
    if images is None:
        return None
    labels = find_idx(directory, split, "labels-idx1")
    if labels is None:
        raise ValueError(f"{images} has no labels beside it: add {PREFIX[split]}-labels-idx1-ubyte[.gz]")
    return Arrays(read_idx(images, 3)[:, None], read_idx(labels, 1), None)


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The uint8 array of an IDX file, gzipped or not. Reading stops where the header says the data ends.

    Raises:
        ValueError: for a file that is damaged, cut short, or not uint8 of `ndim` dimensions.
    """
    packed = path.stat().st_size
    with open_regular(path) as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.open(raw) if zipped else raw as file:
            try:
                header = file.read(4 + 4 * ndim)
                if header[:4] != bytes([0, 0, 8, ndim]) or len(header) < 4 + 4 * ndim:
                    raise ValueError(f"{path} is not an IDX file of bytes in {ndim} dimensions")
                shape = struct.unpack_from(f">{ndim}I", header, 4)
                size = math.prod(shape)
                check_unpacked(size, packed, str(path))
                content = file.read(size + 1 if zipped else min(size + 1, packed))
            except (OSError, EOFError, zlib.error, MemoryError) as error:
                raise ValueError(f"{path} is a damaged gzip file, or too large for the memory: {error}") from error
    if len(content) != size:
        there = "more" if len(content) > size else len(content)
        raise ValueError(f"{path} should hold {'x'.join(map(str, shape))} bytes and holds {there}: copy it again")
    return np.frombuffer(content, np.uint8).reshape(shape)
