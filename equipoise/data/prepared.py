"""A prepared set: arrays of bytes on disk, the fastest source for any size.

The directory holds images.npy (N, C, H, W) uint8, or parts of it, images-00000.npy and so on; labels.npy (N,) int64 if
labelled; and info.json.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from equipoise.core.files import read_json

from .arrays import Arrays, check_names
from .base import Dataset
from .npy import read_array
from .reading import read_ahead
from .regular import open_regular
from .shards import Shards
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
        expected = (info["images"], info["channels"], info["resolution"], info["resolution"])
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
    """Images start ... stop - 1 of a data set, with the file and the offset in bytes to write them to."""

    start: int
    stop: int
    file: Path
    offset: int


def write_prepared(
    dataset: Dataset, out: Path, source: str, *, workers: int = 1, shard_bytes: float | None = None
) -> None:
    """Write `dataset` to the new directory `out`, a chunk in memory at a time.

    It is written beside `out` under a temporary name and renamed when complete, so `out` is never incomplete.

    workers: processes that read and write images, each with a copy of `dataset`; 1 uses this process.
    shard_bytes: most bytes of images in a file, but at least one image; None writes a single file.

    Raises:
        ValueError: if an image cannot be read, or the disk is full or read-only.
    """
    try:
        with suppress(FileExistsError):
            out.parent.mkdir(parents=True)
        with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as folder:
            part = Path(folder, out.name)  # gets ordinary permissions; `folder` is readable to this user alone
            part.mkdir()
            write_images(dataset, part, workers, shard_bytes)
            if dataset.labels is not None:
                np.save(part / LABELS, dataset.labels)
            (part / INFO).write_text(json.dumps(describe(dataset, source), indent=2), "utf-8")
            part.rename(out)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}. Nothing was left behind") from error


def write_images(dataset: Dataset, folder: Path, workers: int, shard_bytes: float | None) -> None:
    chunks = list(plan(dataset, folder, shard_bytes))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("images", total=len(dataset))
        if workers > 1:
            written = share_out(write_chunk, dataset, chunks, workers)
        else:
            written = read_ahead(partial(write_chunk, dataset), chunks, threads=4 if dataset.slow else 0)
        with closing(written):
            for count in written:
                progress.advance(task, count)
    for path in image_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def plan(dataset: Dataset, folder: Path, shard_bytes: float | None) -> Iterator[Chunk]:
    """Create the files with their headers and empty images, and yield the chunks to write."""
    count, spec = len(dataset), dataset.spec
    shape = (spec.channels, spec.resolution, spec.resolution)
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
        with path.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (last - first, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            begin = file.tell()
            file.truncate(begin + (last - first) * size)
        for start in range(first, last, step):
            yield Chunk(start, min(start + step, last), path, begin + (start - first) * size)


def write_chunk(dataset: Dataset, chunk: Chunk) -> int:
    """Read the images of `chunk` and write them to their place. Returns their number."""
    images = dataset.read(np.arange(chunk.start, chunk.stop))
    # Plain writes, not a memory map: on a full disk a map kills the process instead of raising.
    with chunk.file.open("r+b") as file:
        file.seek(chunk.offset)
        file.write(np.ascontiguousarray(images).data)
    return len(images)


def describe(dataset: Dataset, source: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "images": len(dataset),
        "resolution": dataset.spec.resolution,
        "channels": dataset.spec.channels,
        "num_classes": dataset.spec.num_classes,
        "class_names": None if dataset.class_names is None else list(dataset.class_names),
        "source": source,
    }
