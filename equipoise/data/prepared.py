"""A prepared set: one memory-mapped array of bytes, the fastest source for any size.

A directory with images.npy (N, C, H, W) uint8, labels.npy (N,) int64 if labelled, and info.json.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .arrays import Arrays
from .base import Dataset
from .reading import read_ahead

__all__ = ["is_prepared", "open_prepared", "write_prepared"]

IMAGES, LABELS, INFO = "images.npy", "labels.npy", "info.json"
FORMAT = "equipoise images 1"
CHUNK = 1 << 24  # bytes of images read and written at a time


def is_prepared(path: Path) -> bool:
    return (path / IMAGES).is_file()


def open_prepared(path: Path) -> Arrays:
    """The arrays of a prepared set; the images stay on disk.

    Raises:
        ValueError: if a file is missing, damaged, or does not match the others.
    """
    try:
        info = json.loads((path / INFO).read_text("utf-8"))
        images: NDArray[np.uint8] = np.load(path / IMAGES, mmap_mode="r")
        labels = np.load(path / LABELS) if info["num_classes"] else None
        expected = (info["images"], info["channels"], info["resolution"], info["resolution"])
        names = info["class_names"]
        if info["format"] != FORMAT or images.shape != expected or images.dtype != np.uint8:
            raise ValueError(f"{INFO} promises {expected} uint8, {IMAGES} holds {images.shape} {images.dtype}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a complete prepared set ({error}): prepare it again") from error
    return Arrays(images, labels, names)


def write_prepared(dataset: Dataset, out: Path, source: str) -> None:
    """Write `dataset` to the new directory `out`, without ever holding it in memory.

    It is written beside `out` under another name and renamed when complete, so no half of it is ever seen.

    Raises:
        ValueError: if an image cannot be read, or the disk is full or read-only.
    """
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        with (part / IMAGES).open("wb") as file:
            write_images(dataset, file)
        if dataset.labels is not None:
            np.save(part / LABELS, dataset.labels)
        (part / INFO).write_text(json.dumps(describe(dataset, source), indent=2), "utf-8")
        part.rename(out)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror or error}. Nothing was left behind") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_images(dataset: Dataset, file: IO[bytes]) -> None:
    count, spec = len(dataset), dataset.spec
    shape = (count, spec.channels, spec.resolution, spec.resolution)
    # Plain writes and no memory map: on a full disk a map kills the process instead of raising.
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    step = max(1, CHUNK // math.prod(shape[1:]))
    chunks = (np.arange(i, min(i + step, count)) for i in range(0, count, step))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("images", total=count)
        for images in read_ahead(dataset.read, chunks, threads=4 if dataset.slow else 0):
            file.write(images.data)
            progress.advance(task, len(images))
    file.flush()
    os.fsync(file.fileno())


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
