"""A prepared set: arrays of bytes on disk, the fastest source for any size.

The directory holds images.npy (N, C, H, W) uint8, or parts of it, images-00000.npy and so on; labels.npy (N,) int64 if
labelled; and info.json.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from equipoise.core.files import read_json, remove

from .arrays import Arrays, check_names
from .base import Dataset
from .broken import BrokenFilesError
from .npy import read_array
from .reading import read_ahead
from .regular import open_regular
from .shards import Shards
from .split import Subset
from .unfinished import Journal, unfinished
from .workers import share_out

__all__ = ["is_prepared", "open_prepared", "write_prepared"]

LABELS, INFO = "labels.npy", "info.json"
FORMAT = "equipoise images 1"
CHUNK, MOST = 1 << 24, 256  # most bytes and images that are read and written at a time
FILES = 1000  # most image files: a batch opens each one that it reads from


def image_files(path: Path) -> list[Path]:
    """Image files of a prepared set, in order; empty for any other directory."""
    single = path / "images.npy"
    return [single] if single.is_file() else sorted(path.glob("images-*.npy"))


def is_prepared(path: Path) -> bool:
    return bool(image_files(path))


def open_prepared(path: Path) -> Arrays:
    """The arrays of a prepared set; the images stay on disk.

    Raises:
        ValueError: if a file is missing, damaged, or does not match the others.
        OSError: if one cannot be opened or read.
    """
    try:
        with open_regular(path / INFO) as file:
            info = read_json(file.read(), INFO)
        images = Shards(image_files(path))
        expected = (info["images"], info["channels"], info["resolution"], info.get("width", info["resolution"]))
        if info["format"] != FORMAT or images.shape != expected or expected[1] not in (1, 3):
            promised = reprlib.repr((info["format"], *expected))
            raise ValueError(f"{INFO} promises {promised}, there are {(FORMAT, *images.shape)}")
        names = check_names(info["class_names"], INFO)
        labels = None
        if info["num_classes"]:
            with open_regular(path / LABELS) as file:
                labels = read_array(file, (path / LABELS).stat().st_size, LABELS)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a complete prepared set ({error}): prepare it again") from error
    return Arrays(images, labels, names)


class Chunk(NamedTuple):
    """Images start ... stop - 1 of a data set, with the file and the offset in bytes to write them to.

    size: bytes of an image.
    """

    start: int
    stop: int
    file: Path
    offset: int
    size: int


def write_prepared(
    dataset: Dataset,
    out: Path,
    source: str,
    *,
    workers: int = 1,
    shard_bytes: float | None = None,
    resume: str | None = None,
    skip_broken: bool = False,
) -> None:
    """Write `dataset` to the new directory `out`, a chunk in memory at a time.

    It is written beside `out` under a temporary name and renamed when complete, so `out` is never incomplete.

    workers: processes that read and write images, each with a copy of `dataset`; 1 uses this process.
    shard_bytes: most bytes of images in a file, but at least one image; None writes a single file.
    resume: a text that is equal only for equal images. After a signal, the next call with it writes the chunks that are
        missing or differ from their checksums. None leaves nothing behind after a signal.
    skip_broken: leave out images whose files are broken, with a warning.

    Raises:
        ValueError: if an image cannot be read, or the disk is full or read-only.
    """
    task = None if resume is None else f"{FORMAT} {resume} {shard_bytes}"
    try:
        with suppress(FileExistsError):
            out.parent.mkdir(parents=True)
        with unfinished(out, task) as folder:
            part = folder / "all"  # gets ordinary permissions; `folder` is readable to this user alone
            part.mkdir(exist_ok=True)
            broken = write_images(dataset, part, workers, shard_bytes, Journal(folder, task))
            if broken is not None:
                if not skip_broken or len(broken.files) == len(dataset):
                    raise broken
                kept = np.array([i for i in range(len(dataset)) if i not in broken.files])
                dataset = Subset(Copied(dataset, Shards(image_files(part))), kept)
                part = folder / "unbroken"
                remove(part)
                part.mkdir()
                write_images(dataset, part, 1, shard_bytes, Journal(folder, None))
                broken.remark()
            if dataset.labels is not None:
                np.save(part / LABELS, dataset.labels)
            (part / INFO).write_text(json.dumps(describe(dataset, source), indent=2), "utf-8")
            part.rename(out)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}. Nothing was left behind") from error


class Copied:
    """The data set `of`, whose images are read from a copy of them."""

    slow: bool = True

    def __init__(self, of: Dataset, images: Shards):
        self.spec, self.labels, self.class_names, self.images = of.spec, of.labels, of.class_names, images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.images[indices]


class Written(NamedTuple):
    """A chunk that has been written, with the CRC-32 of its bytes, and the error about broken files in it."""

    chunk: Chunk
    checksum: int
    broken: BrokenFilesError | None


def write_images(
    dataset: Dataset, folder: Path, workers: int, shard_bytes: float | None, journal: Journal
) -> BrokenFilesError | None:
    """Write the images that are not there yet. Returns the error about all the broken files among them."""
    chunks = list(plan(dataset, folder, shard_bytes))
    missing = [chunk for chunk in chunks if not is_there(chunk, journal)]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    broken: list[BrokenFilesError] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        done = len(dataset) - sum(chunk.stop - chunk.start for chunk in missing)
        task = progress.add_task("images", total=len(dataset), completed=done)
        if workers > 1:
            written = share_out(write_chunk, dataset, missing, workers)
        else:
            written = read_ahead(partial(write_chunk, dataset), missing, threads=4 if dataset.slow else 0)
        with closing(written):
            for chunk, checksum, errors in written:
                if errors is None:
                    journal.add(chunk.start, chunk.stop, checksum)
                else:
                    broken.append(errors)
                progress.advance(task, chunk.stop - chunk.start)
    for path in image_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not broken:
        return None
    return BrokenFilesError(
        broken[0].path, {i: file for error in broken for i, file in error.files.items()}, len(dataset)
    )


def is_there(chunk: Chunk, journal: Journal) -> bool:
    """Whether an earlier call wrote `chunk`, and its bytes still have their checksum."""
    checksum = journal.written.get((chunk.start, chunk.stop))
    if checksum is None:
        return False
    with chunk.file.open("rb") as file:
        file.seek(chunk.offset)
        return zlib.crc32(file.read((chunk.stop - chunk.start) * chunk.size)) == checksum


def plan(dataset: Dataset, folder: Path, shard_bytes: float | None) -> Iterator[Chunk]:
    """Create the files with their headers and empty images, unless they are there, and yield the chunks to write."""
    count, spec = len(dataset), dataset.spec
    shape = spec.image
    size = math.prod(shape)
    shard = count if shard_bytes is None or shard_bytes >= count * size else max(int(shard_bytes // size), 1)
    if count > FILES * shard:
        raise ValueError(
            f"{count} images of {size} bytes in files of {shard_bytes:g} bytes would be {-(-count // shard)} files: "
            f"choose larger ones, for {FILES} at the most"
        )
    step = min(max(CHUNK // size, 1), MOST)
    for i, first in enumerate(range(0, count, shard)):
        last = min(first + shard, count)
        path = folder / ("images.npy" if shard == count else f"images-{i:05d}.npy")
        with path.open("r+b" if path.exists() else "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (last - first, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            begin = file.tell()
            file.truncate(begin + (last - first) * size)  # keeps images that are there
        for start in range(first, last, step):
            yield Chunk(start, min(start + step, last), path, begin + (start - first) * size, size)


def write_chunk(dataset: Dataset, chunk: Chunk) -> Written:
    """Read the images of `chunk` and write them to their place."""
    errors = None
    try:
        images = dataset.read(np.arange(chunk.start, chunk.stop))
    except BrokenFilesError as error:
        if error.images is None:
            raise
        images, error.images, errors = error.images, None, error
    # Plain writes, not a memory map: on a full disk a map kills the process instead of raising.
    with chunk.file.open("r+b") as file:
        file.seek(chunk.offset)
        file.write(np.ascontiguousarray(images).data)
    return Written(chunk, zlib.crc32(np.ascontiguousarray(images).data), errors)


def describe(dataset: Dataset, source: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "images": len(dataset),
        **dataset.spec.stored,
        "class_names": None if dataset.class_names is None else list(dataset.class_names),
        "source": source,
    }
