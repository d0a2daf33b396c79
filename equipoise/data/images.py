"""Images on disk in any format: detect the format, open them directly, or prepare them once for speed."""

from __future__ import annotations

import math
import multiprocessing
import zipfile
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from equipoise.compute.interrupt import terminable
from equipoise.core.types import NONE_IS_A_WORD, component

from .arrays import ArrayDataset, Arrays, read_npz
from .base import Dataset, DatasetConfig, PathLike, Pixels
from .cifar import CIFAR10
from .decode import Fit, Shape, endings, target_shape
from .files import ImageFiles
from .idx import read_idx_directory
from .kinds import PACKED, visible
from .labels import LabelSource
from .mnist import MNIST, Digits, FashionMNIST
from .prepared import is_prepared, open_prepared, write_prepared
from .regular import expanded, require_regular
from .remarks import remark_if_few
from .sources import FileSource, Folder, Tars, Zip

__all__ = ["Images", "open_dataset", "prepare"]

BY_NAME = {"digits": Digits, "mnist": MNIST, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10}
LEAST = 1000  # files per process: fewer are not worth its start


@component
class Images(DatasetConfig):
    """Images on disk.

    path: a folder of images (one sub-folder per class, or flat and unlabelled), a zip or tar of one, a StyleGAN folder
        or zip with `dataset.json`, a folder of tars (WebDataset), an `.npz` with `x` and optionally `y`, a directory of
        MNIST-like IDX files, or a prepared set.
    resolution: pixels. None requires square images of one size; a number makes squares of that size.
    channels: 1 grey, 3 colour; None is grey if all images are grey, else colour.
    fit: how a picture of other proportions gets the shape. "crop" cuts out the centre; "pad" adds black edges;
        "stretch" scales each side by itself.
    labels: "auto" reads a table beside the images (`dataset.json`, `labels.csv`, `metadata.jsonl`), else sub-folders
        are classes; "folders" takes sub-folders whatever their names or tables; "none" reads no labels.
    skip_broken: leave out files that cannot be read, with a warning that counts and names them. Each file is decoded
        once for this when the set is opened; a prepared set opens at once.
    shape: (H, W), height first, for rectangles; in place of `resolution`. A prepared set of rectangles needs neither.

    Raises:
        ValueError: for both `resolution` and `shape`.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("shape", "mirror")

    path: PathLike
    resolution: Pixels | None = None
    channels: Literal[1, 3] | None = None
    fit: Fit = "crop"
    labels: Annotated[LabelSource, NONE_IS_A_WORD] = "auto"
    skip_broken: bool = False
    shape: tuple[Pixels, Pixels] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for `resolution` with `shape`: each alone is the size. Leave one out."""
        target_shape(self.resolution, self.shape, self.channels)

    def build(self) -> Dataset:
        dataset = open_dataset(
            self.path,
            resolution=self.resolution,
            shape=self.shape,
            channels=self.channels,
            fit=self.fit,
            labels=self.labels,
            skip_broken=self.skip_broken,
        )
        remark_if_few(len(dataset), str(self.path))
        return dataset


def open_dataset(
    path: PathLike,
    *,
    resolution: int | None = None,
    shape: Shape | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    labels: LabelSource = "auto",
    skip_broken: bool = False,
) -> Dataset:
    """Open the data set at `path`, in any format that `Images` lists, with its settings.

    Raises:
        ValueError: if it is missing, of unknown format, damaged or inconsistent. The message names the file and the
            fix.
    """
    place = existing(path)
    target = Target(target_shape(resolution, shape, channels), channels, fit, labels)
    arrays = of_arrays(place, target)
    if arrays is not None:
        return arrays
    return of_files(place, target, broken="skip" if skip_broken else "refuse")


class Target(NamedTuple):
    """Settings of `Images`."""

    shape: Shape | None
    channels: int | None
    fit: Fit
    labels: LabelSource


def existing(path: PathLike) -> Path:
    """The directory or the regular file at `path`. Raises ValueError for anything else."""
    place = expanded(path)
    if not place.exists():
        raise ValueError(f"there is no file or directory {place}")
    return place if place.is_dir() else require_regular(place)


def of_arrays(place: Path, target: Target) -> ArrayDataset | None:
    arrays = read_arrays(place)
    if arrays is None:
        return None
    if target.shape is None and is_prepared(place):  # rectangles too: whoever prepared them asked for their shape
        target = target._replace(shape=shape_of(arrays))
    return fitted(arrays, target, str(place))


def shape_of(arrays: Arrays) -> Shape:
    """(H, W) of the images."""
    _, _, height, width = arrays.images.shape
    return height, width


def fitted(arrays: Arrays, target: Target, where: str) -> ArrayDataset:
    if target.labels == "folders":
        raise ValueError(f"{where} holds arrays, which have no folders: leave labels=folders out")
    if target.labels == "none":
        arrays = Arrays(arrays.images, None, None)
    return ArrayDataset(*arrays, shape=target.shape, channels=target.channels, fit=target.fit, where=where)


def of_files(
    place: Path, target: Target, *, broken: Literal["refuse", "skip", "defer"], thorough: bool = False
) -> ImageFiles:
    return ImageFiles(
        source_at(place),
        shape=target.shape,
        channels=target.channels,
        how=target.fit,
        labels=target.labels,
        broken=broken,
        thorough=thorough,
    )


def source_at(place: Path) -> FileSource:
    """The collection of files at `place`. Raises ValueError if it is none."""
    if place.is_dir():
        tars = sorted(path for path in place.glob("*.tar") if visible(path.name))
        return Tars(place, tars) if tars and not has_pictures(place) else Folder(place)
    name = place.name.lower()
    if name.endswith(".tar"):
        return Tars(place, [place])
    if name.endswith(PACKED):
        how = f"mkdir FOLDER && tar -xf {place} -C FOLDER" if ".t" in name else "with the program that made it"
        raise ValueError(f"{place} is packed, and its pictures can only be read one after another: unpack it ({how})")
    if not looks_like_zip(place):
        raise ValueError(
            f"{place} is not a data set: expected a folder of images, a .zip, a .tar, an .npz, a directory of IDX "
            "files or a prepared set"
        )
    return Zip(place)


def has_pictures(folder: Path) -> bool:
    """Whether there are pictures or folders beside the tars of `folder`."""
    pictures = endings()
    return any(path.is_dir() or path.name.lower().endswith(pictures) for path in folder.iterdir() if visible(path.name))


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
    shape: Shape | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    labels: LabelSource = "auto",
    skip_broken: bool = False,
    workers: int = 1,
    shard_gb: float | None = None,
) -> ArrayDataset:
    """Write `source` as a uint8 set to the new directory `out`, and open the result.

    source: a path as in `Images`, or "digits", "mnist", "fashion_mnist", "cifar10" (write ./mnist for a folder of that
        name).
    resolution, shape, channels, fit, labels: as in `Images`.
    skip_broken: leave out files that cannot be read, with a warning that counts and names them.
    workers: most processes that decode image files. Each gets at least 1,000 files, since it takes seconds to start.
        The result does not depend on it. With more than one, a script needs the usual `if __name__ == "__main__":`.
    shard_gb: largest size of a file of images, in gigabytes (10^9 bytes); None writes a single file.

    Raises:
        ValueError: as `open_dataset`, and if `out` exists or cannot be written. The message names all broken files.
        RunError: if one of several workers is killed, or (`Interrupted`) SIGTERM asks to stop.

    After an error nothing is left behind. If image files are read and a signal ends the work, the same call continues.
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
    stopped, shard_bytes = f"stopped before {target} was complete", None if shard_gb is None else shard_gb * 1e9
    with terminable(f"{stopped}. Nothing was left behind"):
        made = to_prepare(source, Target(target_shape(resolution, shape, channels), channels, fit, labels))
    if isinstance(made, ArrayDataset):  # quick to copy, and a copy of it for each process would be large
        with terminable(f"{stopped}. Nothing was left behind"):
            write_prepared(made, target, str(source), shard_bytes=shard_bytes)
    else:
        with terminable(f"{stopped}: the same command continues"):
            write_prepared(
                made,
                target,
                str(source),
                workers=min(workers, len(made) // LEAST),
                shard_bytes=shard_bytes,
                resume=made.fingerprint(),
                skip_broken=skip_broken,
            )
    arrays = open_prepared(target)
    result = ArrayDataset(*arrays, shape=shape_of(arrays))
    remark_if_few(len(result), str(target))
    return result


def to_prepare(source: PathLike, target: Target) -> ArrayDataset | ImageFiles:
    config = BY_NAME.get(str(source))
    if config is None:
        place = existing(source)
        arrays = of_arrays(place, target)
        return of_files(place, target, broken="defer", thorough=True) if arrays is None else arrays
    built = config().build()
    return fitted(Arrays(built.images, built.labels, built.class_names), target, str(source))
