"""Images in one array, in memory or on disk, and checks of labels."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from equipoise.core.types import ImageSpec

from .decode import Fit, Shape, enlargement, fit_array, target_shape
from .npy import read_array
from .regular import printable, reason
from .remarks import remark
from .shards import Shards
from .zips import open_entry, open_zip

__all__ = ["ArrayDataset", "Arrays", "Split", "check_labels", "check_names", "read_npz"]

Split = Literal["train", "test"]


class Arrays(NamedTuple):
    """Contents of a file of arrays, before any check of labels.

    images: (N, C, H, W) uint8, C = 1 or 3.
    labels: (N,) or None.
    class_names: names by class id, or None.
    """

    images: NDArray[np.uint8] | Shards
    labels: NDArray[np.generic] | None
    class_names: Sequence[str] | None


class ArrayDataset:
    """Images (N, C, H, W) uint8 as a `Dataset`.

    resolution, channels: format of the images that `read` returns; None keeps the array's. Other values convert each
        image as it is read.
    shape: (H, W) of rectangles, in place of `resolution`.
    fit: how an image gets another shape, as in `Images`.
    where: name of the source, for messages.

    Raises:
        ValueError: for no images or pixels, images that are not square without resolution or shape, or bad labels.
    """

    spec: ImageSpec
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None
    slow: bool

    def __init__(
        self,
        images: NDArray[np.uint8] | Shards,
        labels: NDArray[np.generic] | None = None,
        class_names: Sequence[str] | None = None,
        *,
        resolution: int | None = None,
        shape: Shape | None = None,
        channels: int | None = None,
        fit: Fit = "crop",
        where: str = "the data set",
    ):
        target = target_shape(resolution, shape, channels)
        count, own_channels, height, width = images.shape
        if count == 0:
            raise ValueError(f"{where} holds no images")
        if 0 in (own_channels, height, width):
            raise ValueError(f"{where} holds images without pixels: {width}x{height} in {own_channels} channels")
        if target is None and height != width:
            raise ValueError(
                f"{where} holds images of {width}x{height} pixels, which are not square: pass resolution=..., "
                'to crop the centre and resize (fit="pad" or "stretch" keep the edges), or shape=(HEIGHT, WIDTH) for '
                "rectangles"
            )
        self.images, self.how = images, fit
        self.labels, num_classes = check_labels(labels, count, class_names, where)
        self.class_names = None if labels is None else class_names
        rows, columns = target or (height, width)
        self.spec = ImageSpec(rows, channels or own_channels, num_classes, columns)
        self._fits = (own_channels, height, width) == self.spec.image
        self.slow = not self._fits or isinstance(images, np.memmap | Shards)
        factor = enlargement((width, height), self.spec.shape, fit)
        if factor > 1:
            remark(
                f"{where}: images of {width}x{height} pixels are enlarged {factor:.3g} times: G learns the blur. Take "
                "a smaller resolution"
            )

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self._fits:
            return np.ascontiguousarray(self.images[indices])
        shape, channels = self.spec.shape, self.spec.channels
        return np.stack([fit_array(self.images[[i]][0], shape, channels, self.how) for i in indices])


def check_labels(
    labels: NDArray[np.generic] | None, count: int, class_names: Sequence[str] | None, where: str
) -> tuple[NDArray[np.int64] | None, int]:
    """Labels as int64, and the number of classes: the number of names, else the largest label + 1.

    Raises:
        ValueError: unless there is one non-negative integer per image, below the number of names. Without names, also
            if a class below the largest label has no image: a generator would still be trained to draw it.
    """
    if labels is None:
        return None, 0
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{where}: labels must be one integer per image, shape ({count},), "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    ids: NDArray[np.int64] = labels.astype(np.int64)
    used = np.unique(ids)
    if used[0] < 0:
        raise ValueError(f"{where}: classes are numbered from 0, got the label {used[0]}")
    if class_names is not None:
        if used[-1] >= len(class_names):
            raise ValueError(f"{where}: label {used[-1]} has no name, there are {len(class_names)} class names")
        return ids, len(class_names)
    if used[-1] >= len(used):
        first = next(i for i, label in enumerate(used) if i != label)
        raise ValueError(
            f"{where}: labels reach {used[-1]} but only {len(used)} classes have images (class {first} has none): "
            f"number them 0 to {len(used) - 1}"
        )
    return ids, len(used)


def check_names(names: object, where: str) -> list[str] | None:
    """Class names, a list of text, or None. Raises ValueError for anything else."""
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: class_names must be a list of text, a name per class, got {reprlib.repr(names)}")
    return names


def read_npz(file: Path | IO[bytes], where: str, *, split: Split = "train") -> Arrays:
    """The arrays of an `.npz`: `x` and, if there, `y`; or `x_train`, `y_train`, `x_test`, `y_test`.

    Images are uint8, (N, H, W) grey or (N, H, W, C) with C = 1 or 3. `class_names` may hold a name per class.

    Raises:
        ValueError: for a file that cannot be read, other keys, another dtype or another shape.
    """
    suffixes = ("", "_train") if split == "train" else ("_test",)
    with open_zip(file, where, ".npz file") as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        suffix = next((end for end in suffixes if f"x{end}" in entries), None)
        if suffix is None:
            expected = "'x' and 'y', or 'x_train' and 'y_train'" if split == "train" else "'x_test' and 'y_test'"
            raise ValueError(f"{where} holds the arrays {listed(sorted(entries))}; expected {expected}")
        x, y, names = (
            member(archive, entries[key], where) if key in entries else None
            for key in (f"x{suffix}", f"y{suffix}", "class_names")
        )
    assert x is not None
    return Arrays(channels_first(x, where), y, None if names is None else names_in(names, where))


def read_plain_npz(file: Path | IO[bytes], where: str) -> dict[str, NDArray[np.generic]]:
    """All arrays of an untrusted `.npz`, by name. Raises ValueError unless each is a plain array."""
    with open_zip(file, where, ".npz file") as archive:
        return {info.filename.removesuffix(".npy"): member(archive, info, where) for info in archive.infolist()}


def member(archive: ZipFile, info: ZipInfo, where: str) -> NDArray[np.generic]:
    try:
        with open_entry(archive, info) as file:
            return read_array(file, info.file_size, info.filename)
    except Exception as error:  # damaged data makes zipfile and zlib raise nearly anything, and memory may be short
        raise ValueError(f"{where} is not a readable .npz file of plain arrays: {reason(error)}") from error


def listed(names: Sequence[str]) -> str:
    """Up to ten of the names, for a message."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{', '.join(printable(name) for name in names[:10]) or 'none'}{more}"


def names_in(names: NDArray[np.generic], where: str) -> list[str]:
    """Class names from an array of text."""
    if names.ndim != 1 or names.dtype.kind not in "US" or names.itemsize == 0:
        raise ValueError(
            f"{where}: class_names must be a list of text, a name per class, got {names.dtype} of shape {names.shape}"
        )
    try:
        return [str(name) for name in names.astype(str)]
    except (ValueError, SystemError) as error:  # SystemError: numbers outside Unicode
        raise ValueError(f"{where}: class_names is not text: {reason(error)}") from error


def channels_first(images: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    """(N, H, W) or (N, H, W, C) -> (N, C, H, W), a view."""
    if images.dtype != np.uint8:
        raise ValueError(f"{where}: images must be uint8 in [0, 255], got {images.dtype}: convert them first")
    x: NDArray[np.uint8] = images.astype(np.uint8, copy=False)
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    hint = ""
    if x.ndim == 4 and x.shape[1] in (1, 3):
        hint = "; these look channels-first: save x.transpose(0, 2, 3, 1)"
    raise ValueError(f"{where}: images must be (N, H, W) or (N, H, W, 1 or 3), got {x.shape}{hint}")
