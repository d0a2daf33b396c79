"""Sources of images for an evaluation: a run, a folder, a zip, an .npz, or a data set given as a config's text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.config import components
from equipoise.core.grammar import parse
from equipoise.core.types import ImageSpec
from equipoise.data import Dataset, DatasetConfig, open_dataset
from equipoise.data.reading import read_ahead
from equipoise.data.regular import expanded
from equipoise.generate import Generator, draw_latents, generator_file, images
from equipoise.generate.generator import sample_classes

from .discriminator import TrainedDiscriminator, load_discriminator

__all__ = ["Drawn", "Given", "Source", "of_dataset", "of_generator", "open_source"]

Given = str | Path | DatasetConfig | Generator
"""Names of a source: a path or a config's text, or the objects that these stand for."""
Drawn = tuple[NDArray[np.uint8], NDArray[np.int64] | None]
"""Images (n, H, W, C) and their classes (n,), or None if they have none."""


@dataclass(frozen=True)
class Source:
    """Images to measure.

    name: the source's name as the user gave it.
    spec: the spec of the images.
    held: number of images; None for a generator, which draws any number.
    labels: (held,) the images' classes, or None.
    sha256: hash of the generator's file, or None.
    draw: (num, seed, batch size, slice of the batches) -> these batches. num is at most `held`; None takes all.
    discriminator: reads the discriminator of the run that draws the images. All processes call it together. None for
        images without a run.
    generator: the generator that draws the images, or None.
    """

    name: str
    spec: ImageSpec
    held: int | None
    labels: NDArray[np.int64] | None
    sha256: str | None
    draw: Callable[[int | None, int, int, slice], Iterator[Drawn]]
    discriminator: Callable[[], TrainedDiscriminator] | None = None
    generator: Generator | None = None


def open_source(given: Given, known: Mapping[str, Any] | None = None) -> Source:
    """Open the images that `given` names. `known`: components that a config's text may call, default the library's.

    A place that holds a generator is a run or an export. The generator draws the images of `equipoise sample` with the
    same seed. A folder, zip, .npz or data set gives a random choice if it holds more images than are asked for.

    Raises:
        ValueError: if the source does not exist, or cannot be read.
    """
    if isinstance(given, Generator):
        return of_generator("a generator", given, None)
    if isinstance(given, DatasetConfig):
        return of_dataset(repr(given), given.build())
    name, place = str(given), expanded(given)
    if place.exists():
        file = generator_file(place)
        if file is None and not (place / "config.txt").exists():
            return of_dataset(name, open_dataset(place))
        generator = Generator.from_pretrained(place, known)
        assert file is not None
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if not (place / "checkpoints").exists():
            return of_generator(name, generator, sha256)
        return of_generator(name, generator, sha256, partial(load_discriminator, place, known))
    value = parse(name, known or components())
    if not isinstance(value, DatasetConfig):
        raise ValueError(
            f"there is no file or directory {name}, and no data set of this name: give a run, a folder of images, a "
            "zip, an .npz, or a data set such as Digits or 'Images(path=\"FOLDER\",resolution=64)'"
        )
    return of_dataset(name, value.build())


def of_generator(
    name: str,
    generator: Generator,
    sha256: str | None,
    discriminator: Callable[[], TrainedDiscriminator] | None = None,
) -> Source:
    """Images drawn from a generator. sha256: hash of its file, if it has one.  discriminator: as in `Source`."""

    def draw(num: int | None, seed: int, batch_size: int, which: slice = slice(None)) -> Iterator[Drawn]:
        assert num is not None
        z, y = draw_latents(generator, num, seed=seed), sample_classes(generator, num, None)
        for i in range(0, num, batch_size)[which]:
            labels = None if y is None else y[i : i + batch_size]
            yield images(generator, z[i : i + batch_size], labels), None if labels is None else labels.numpy()

    return Source(name, generator.spec, None, None, sha256, draw, discriminator, generator)


def of_dataset(name: str, dataset: Dataset) -> Source:
    """The images of a data set."""

    def draw(num: int | None, seed: int, batch_size: int, which: slice = slice(None)) -> Iterator[Drawn]:
        indices = np.arange(len(dataset))
        if num is not None and num < len(dataset):
            indices = np.random.default_rng(seed).permutation(len(dataset))[:num]
        parts = np.split(indices, range(batch_size, len(indices), batch_size))[which]
        pixels = read_ahead(dataset.read, parts, threads=4 if dataset.slow else 0)
        for part, x in zip(parts, pixels, strict=True):
            labels = None if dataset.labels is None else dataset.labels[part]
            yield x.transpose(0, 2, 3, 1), labels  # (n, C, H, W) -> (n, H, W, C)

    return Source(name, dataset.spec, len(dataset), dataset.labels, None, draw)
