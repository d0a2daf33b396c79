"""CIFAR-10: 32x32, colour, ten classes. Reads a local copy in any published form, or downloads one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.core.types import component

from .arrays import ArrayDataset, Arrays, Split, read_npz
from .base import DatasetConfig, PathLike
from .download import cache_directory, fetch
from .pickles import images_of, read_batch
from .regular import expanded, reason
from .tars import read_tar

__all__ = ["CIFAR10"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
URLS = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

PARTS: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{i}" for i in range(1, 6)),
    "test": ("test_batch",),
}
"""Files of a split, in order. In the binary version their names end in .bin."""
ROW = 3 * 32 * 32  # bytes of an image: red, green, blue


@component
class CIFAR10(DatasetConfig):
    """CIFAR-10, 50,000 training and 10,000 test pictures of ten classes (Krizhevsky 2009).

    path: the published archive `cifar-10-*.tar.gz`, binary or for Python; a directory with the archive or its unpacked
        files; or an `.npz` file with x_train, y_train, x_test, y_test. None looks in the cache ($EQUIPOISE_CACHE or
        ~/.cache/equipoise, then cifar10) and downloads the binary version there.
    split: the published part, "train" or "test".

    Raises:
        ValueError: when built, if `path` holds none of these, or the files are damaged.
    """

    path: PathLike | None = None
    split: Split = "train"

    def build(self) -> ArrayDataset:
        place = cache_directory() / "cifar10" if self.path is None else expanded(self.path)
        source = find(place)
        if source is None and self.path is None:
            source = download(place / "cifar-10-binary.tar.gz")
        if source is None:
            raise ValueError(
                f"no CIFAR-10 at {place}: expected cifar-10-binary.tar.gz or cifar-10-python.tar.gz, a directory that "
                "holds one of them or its data_batch_1[.bin], or an .npz file with x_train, y_train, x_test, y_test"
            )
        images, labels, _ = read(source, self.split)
        if labels is None:
            raise ValueError(f"{source} holds images of CIFAR-10 but no y_{self.split}")
        if images.shape[1:] != (3, 32, 32):
            raise ValueError(
                f"{source} holds images of shape {images.shape[1:]}, but CIFAR-10 has (3, 32, 32): give CIFAR-10's "
                "own file, or data=Images(path=...)"
            )
        return ArrayDataset(images, labels.reshape(-1), CLASSES, where=str(source))


def download(archive: Path) -> Path:
    try:
        return fetch(URLS, archive, SHA256)
    except ValueError as error:
        raise ValueError(
            f"CIFAR-10 is neither here nor within reach: {error}\n"
            f"Put {archive.name} into {archive.parent} by hand, or pass the path=... of your copy"
        ) from error


def find(place: Path) -> Path | None:
    """The archive, the .npz or the folder of batches at `place` or directly inside it."""
    if not place.is_dir():
        return place if place.exists() else None
    batches = (place / folder for folder in ("", "cifar-10-batches-bin", "cifar-10-batches-py"))
    folder = next((b for b in batches if any((b / f"data_batch_1{end}").is_file() for end in ("", ".bin"))), None)
    files = (place / name for name in ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "cifar10.npz"))
    return folder or next((file for file in files if file.is_file()), None)


def read(place: Path, split: Split) -> Arrays:
    """Images (N, 3, 32, 32) and labels (N,) of a split. Raises ValueError for incomplete or damaged files."""
    if place.suffix == ".npz":
        return read_npz(place, str(place), split=split)
    files = members(place, split)
    parts = []
    for name in PARTS[split]:
        if name in files:
            parts.append(unpickled(files[name], f"{name} of {place}"))
        elif f"{name}.bin" in files:
            parts.append(rows(files[f"{name}.bin"], f"{name}.bin of {place}"))
        else:
            raise ValueError(f"{place} lacks {name}[.bin] of CIFAR-10: unpack the archive again")
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Arrays(images.reshape(-1, 3, 32, 32), labels, CLASSES)


def members(place: Path, split: Split) -> Mapping[str, bytes]:
    """The files of a split in a folder or an archive, by name."""
    wanted = {name + end for name in PARTS[split] for end in ("", ".bin")}
    if place.is_dir():
        return {name: (place / name).read_bytes() for name in wanted if (place / name).is_file()}
    return read_tar(place, wanted)


def rows(content: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels from the binary version. Each row is one byte for the class, then the image."""
    if not content or len(content) % (1 + ROW):
        raise ValueError(f"{where} holds {len(content)} bytes, no multiple of {1 + ROW}: it is cut short, get it again")
    table = np.frombuffer(content, np.uint8).reshape(-1, 1 + ROW)
    return table[:, 1:], table[:, 0].astype(np.int64)


def unpickled(content: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels from the version for Python: a pickled dictionary with `data` (n, 3072) and `labels`."""
    try:
        batch = read_batch(content)
        data, labels = batch["data"], batch["labels"]
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise ValueError("its labels are not a list of whole numbers")
        y = np.array(labels, np.int64)
        x = images_of(data)
    except Exception as error:  # a damaged pickle makes Python raise nearly anything
        raise ValueError(f"{where} is not a batch of CIFAR-10, or it is damaged: {reason(error)}") from error
    if x is None or x.shape != (len(y), ROW):
        there = f"a {type(data).__name__}" if x is None else f"shape {x.shape}"
        raise ValueError(f"{where}: expected bytes of shape ({len(y)}, {ROW}), got {there}")
    return x, y
