"""Images on disk in any format: detect the format, open them directly, or prepare them once for speed."""

from __future__ import annotations

import math
import multiprocessing
import zipfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from equipoise.compute.interrupt import terminable
from equipoise.core.types import component

from .arrays import ArrayDataset, Arrays, read_npz
from .base import Dataset, DatasetConfig, PathLike
from .cifar import CIFAR10
from .files import Folder, ImageFiles, Zip
from .idx import read_idx_directory
from .mnist import MNIST, Digits, FashionMNIST
from .prepared import is_prepared, open_prepared, write_prepared
from .regular import expanded, require_regular

__all__ = ["Images", "open_dataset", "prepare"]

BY_NAME = {"digits": Digits, "mnist": MNIST, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10}
LEAST = 1000  # files per process: fewer are not worth its start


@component
class Images(DatasetConfig):
    """Images on disk.

    path: a folder of images (one sub-folder per class, or flat and unlabelled), a StyleGAN folder or zip with
        `dataset.json`, an `.npz` with `x` and optionally `y`, a directory of MNIST-like IDX files, or a prepared set.
    resolution: pixels. None requires square images of one size; a number crops the centre and resizes.
    channels: 1 grey, 3 colour; None is grey if all images are grey, else colour.
    """

    path: PathLike
    resolution: Annotated[int, Field(ge=1)] | None = None
    channels: Literal[1, 3] | None = None

    def build(self) -> Dataset:
        return open_dataset(self.path, resolution=self.resolution, channels=self.channels)


def open_dataset(path: PathLike, *, resolution: int | None = None, channels: int | None = None) -> Dataset:
    """Open the data set at `path`, in any format that `Images` lists.

    Raises:
        ValueError: if it is missing, of unknown format, damaged or inconsistent. The message names the file and the
            fix.
    """
    place = expanded(path)
    if not place.exists():
        raise ValueError(f"there is no file or directory {place}")
    if not place.is_dir():
        require_regular(place)
    arrays = read_arrays(place)
    if arrays is not None:
        return ArrayDataset(*arrays, resolution=resolution, channels=channels, where=str(place))
    if not place.is_dir() and not looks_like_zip(place):
        raise ValueError(
            f"{place} is not a data set: expected a folder of images, a .zip, an .npz, a directory of IDX files "
            "or a prepared set"
        )
    return ImageFiles(Folder(place) if place.is_dir() else Zip(place), resolution=resolution, channels=channels)


def read_arrays(place: Path) -> Arrays | None:
    """The arrays at `place`, or None if it holds image files or an unknown format."""
    if is_prepared(place):
        return open_prepared(place)
    if place.suffix == ".npz" and place.is_file():
        return read_npz(place, str(place))
    return read_idx_directory(place)


def looks_like_zip(place: Path) -> bool:
    return place.suffix.lower() == ".zip" or zipfile.is_zipfile(place)


def prepare(
    source: PathLike,
    out: PathLike,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    workers: int = 1,
    shard_gb: float | None = None,
) -> ArrayDataset:
    """Write `source` as a uint8 set to the new directory `out`, and open the result.

    source: a path as in `Images`, or "digits", "mnist", "fashion_mnist", "cifar10" (write ./mnist for a folder of that
        name).
    resolution, channels: as in `Images`.
    workers: most processes that decode image files. Each gets at least 1,000 files, since it takes seconds to start.
        The result does not depend on it. With more than one, a script needs the usual `if __name__ == "__main__":`.
    shard_gb: largest size of a file of images, in gigabytes (10^9 bytes); None writes a single file.

    Raises:
        ValueError: as `open_dataset`, and if `out` exists or cannot be written.
        RunError: if one of several workers is killed, or (`Interrupted`) SIGTERM asks to stop.

    After an error nothing is left behind.
    """
    target = expanded(out)
    if target.exists():
        raise ValueError(f"{target} exists already: choose another directory, or remove it first")
    if workers < 1 or (shard_gb is not None and not 0 < shard_gb < math.inf):
        raise ValueError(f"expected workers >= 1 and 0 < shard_gb < inf, or None, got {workers=}, {shard_gb=}")
    if workers > 1 and getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing tests
        raise ValueError(
            f"prepare(workers={workers}) is called again by each of its workers, which import this script: call it "
            'below `if __name__ == "__main__":`'
        )
    with terminable(f"stopped before {target} was complete. Nothing was left behind"):
        config = BY_NAME.get(str(source))
        if config is None:
            dataset = open_dataset(source, resolution=resolution, channels=channels)
        else:
            built = config().build()
            dataset = ArrayDataset(
                built.images, built.labels, built.class_names, resolution=resolution, channels=channels
            )
        # Arrays need no decoding, and a copy of them for each process would be large.
        workers = min(workers, len(dataset) // LEAST) if isinstance(dataset, ImageFiles) else 1
        shard_bytes = None if shard_gb is None else shard_gb * 1e9
        write_prepared(dataset, target, str(source), workers=workers, shard_bytes=shard_bytes)
    return ArrayDataset(*open_prepared(target))
