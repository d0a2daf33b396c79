"""IDX, the format of MNIST and its relatives: big-endian sizes, then bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays, Split

__all__ = ["find_idx", "read_idx", "read_idx_directory"]

PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def find_idx(directory: Path, split: Split, kind: str) -> Path | None:
    """The file of `kind` "images-idx3" or "labels-idx1", gzipped or not, also in the spelling "images.idx3"."""
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
    """The uint8 array of an IDX file, gzipped or not.

    Raises:
        ValueError: for a file that is damaged, cut short, or not uint8 of `ndim` dimensions.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file: {error}") from error
    if data[:4] != bytes([0, 0, 8, ndim]) or len(data) < 4 + 4 * ndim:
        raise ValueError(f"{path} is no IDX file of bytes in {ndim} dimensions")
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * ndim)
    if values.size != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} should hold {'x'.join(map(str, shape))} bytes and holds {values.size}: copy it again")
    return values.reshape(shape)
