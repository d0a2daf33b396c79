"""Pictures of a generator, drawn as the query of an address asks."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from equipoise.core import grammar
from equipoise.core.types import component
from equipoise.generate import (
    Generator,
    generator_file,
    glance,
    grid,
    interpolate,
    latent,
    mixing_grid,
    png,
    truncated,
    truncated_in_w,
)
from equipoise.generate.style_space import number_of_layers

T = TypeVar("T", bound="Query")

__all__ = ["Mix", "Pictures", "Query", "Samples", "Walk"]

MOST_IMAGES = 100
MOST_PIXELS = 2**24
"""Most images and pixels of a picture: more would take long, and more memory than a browser shows."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Index = Annotated[int, Field(ge=0, lt=10_000)]
Indices = Annotated[tuple[Index, ...], BeforeValidator(lambda given: (given,) if isinstance(given, int) else given)]
Columns = Annotated[int, Field(ge=1, le=MOST_IMAGES)]


@component
class Query(ABC):
    """A picture of a generator.

    which: the run's latest generator, or the one in its best/.
    truncation: threshold of z, as in `generate.truncated`; None: untruncated.
    psi: truncation of the styles, as in `generate.truncated_in_w`; 1: none.
    cutoff: number of layers that psi is for; None: all.
    """

    which: Literal["latest", "best"] = "latest"
    truncation: float | None = Field(default=None, gt=0)
    psi: float = Field(default=1.0, ge=-2, le=2)
    cutoff: int | None = Field(default=None, ge=1)

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of images that are drawn."""

    @abstractmethod
    def draw(self, generator: Generator) -> tuple[NDArray[np.uint8], int]:
        """Draw images (N, H, W, C), and the number of columns.

        Raises:
            ValueError: for a class, a layer or a path that the generator lacks.
        """


@component
class Samples(Query):
    """The first images of a seed.

    seed: seed of the latents.
    num: number of images.
    columns: number of columns.
    label: class of all images; None: all classes in turn.
    """

    seed: Seed = 0
    num: int = Field(default=36, ge=1, le=MOST_IMAGES)
    columns: Columns = 6
    label: int | None = None

    @property
    def count(self) -> int:
        return self.num

    def draw(self, generator: Generator) -> tuple[NDArray[np.uint8], int]:
        classes = None if self.label is None else [self.label]
        return generator.sample(self.num, seed=self.seed, classes=classes), self.columns


@component
class Walk(Query):
    """Images between two images.

    seed, index: the first image: number `index` of `seed`.
    to_seed, to_index: the last image.
    label, to_label: classes of the two; None: their own.
    frames: number of images, both ends among them.
    columns: number of columns.
    path: spherical or linear; None: the path of the prior.
    """

    seed: Seed = 0
    index: Index = 0
    to_seed: Seed = 1
    to_index: Index = 0
    label: int | None = None
    to_label: int | None = None
    frames: int = Field(default=10, ge=2, le=MOST_IMAGES)
    columns: Columns = 10
    path: Literal["spherical", "linear"] | None = None

    @property
    def count(self) -> int:
        return self.frames

    def draw(self, generator: Generator) -> tuple[NDArray[np.uint8], int]:
        start = latent(generator, self.index, seed=self.seed, label=self.label)
        end = latent(generator, self.to_index, seed=self.to_seed, label=self.to_label)
        return interpolate(generator, start, end, self.frames, path=self.path), self.columns


@component
class Mix(Query):
    """Mixed styles, as `generate.mixing_grid`.

    seed: seed of all images.
    rows: indices of the images that give `layers`.
    columns: indices of the images that give all other layers.
    layers: layers from 0, the coarsest.
    label: class of all images; None: their own.
    """

    seed: Seed = 0
    rows: Indices = (0, 1, 2)
    columns: Indices = (3, 4, 5, 6)
    layers: Indices = (0, 1, 2, 3)
    label: int | None = None

    @property
    def count(self) -> int:
        return (len(self.rows) + 1) * (len(self.columns) + 1)

    def draw(self, generator: Generator) -> tuple[NDArray[np.uint8], int]:
        return mixing_grid(generator, self.rows, self.columns, self.layers, seed=self.seed, label=self.label)


class Pictures:
    """Pictures of the generators in a place. A generator that a run has written anew is read again.

    place: a run, its best/, or an exported folder.
    known: your own components by name, as in `Generator.from_pretrained`.

    Raises:
        ValueError: if there is no generator in `place`.
    """

    def __init__(self, place: Path, known: Mapping[str, Any] | None = None):
        self.place, self.known = place, known
        self.lock = threading.Lock()  # one picture at a time: two would only share the cores
        self._read = lru_cache(2)(lambda path, _: Generator.from_pretrained(path, known))
        self._truncated = lru_cache(2)(lambda path, modified, t: truncated(self._read(path, modified), t))
        self.about({})

    def generator(self, query: Query) -> Generator:
        """The generator that `query` asks for.

        Raises:
            ValueError: if it is missing or damaged, or cannot be truncated so.
        """
        place = self.place / "best" if query.which == "best" else self.place
        path = generator_file(place)
        if path is None:
            return Generator.from_pretrained(place)  # which says what was expected
        written = (path, path.stat().st_mtime_ns)
        generator = self._read(*written)
        if query.truncation is not None:
            generator = self._truncated(*written, query.truncation)
        if query.psi == 1 and query.cutoff is None:
            return generator
        return truncated_in_w(generator, query.psi, query.cutoff)

    def draw(self, query: Query) -> bytes:
        """Draw the picture as a PNG file.

        Raises:
            ValueError: if it is too large, or this generator cannot draw it.
        """
        with self.lock:
            generator = self.generator(query)
            most = most_images(generator)
            if query.count > most:
                raise ValueError(
                    f"{query.count} images of {generator.spec.size} pixels are more than this page draws at a time: "
                    f"ask for at most {most}"
                )
            return png(grid(*query.draw(generator)))

    def about(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Facts about a generator that the page's controls need. fields: of a query; only `which` counts.

        Raises:
            ValueError: if the generator is missing or damaged.
        """
        query = asked(Samples, fields)
        with self.lock:
            generator = self.generator(query)
        columns, num = glance(generator.spec.shape[1])
        return {
            "place": str(self.place),
            "which": ["latest", "best"] if generator_file(self.place / "best") else ["latest"],
            "config": repr(generator.config),
            "resolution": generator.spec.resolution,
            "height": generator.spec.shape[0],
            "width": generator.spec.shape[1],
            "channels": generator.spec.channels,
            "classes": generator.spec.num_classes,
            "layers": number_of_layers(generator.net) if generator.config.styled else 0,
            "truncation": generator.truncation,
            "nimg": generator.nimg,
            "num": num,
            "columns": columns,
            "most": most_images(generator),
        }


def most_images(generator: Generator) -> int:
    return max(2, min(MOST_IMAGES, MOST_PIXELS // math.prod(generator.spec.shape)))


def fields_of(query: str) -> dict[str, str]:
    """The fields of an address's query, by name.

    Raises:
        ValueError: for text of another form, and for a field that is given twice.
    """
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=50)
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice} is given twice: give each field once")
    return fields


def asked(kind: Callable[..., T], fields: Mapping[str, str]) -> T:
    """The query of a kind with these fields, each in the syntax of a config's values.

    Raises:
        ValueError: for an unknown field, and for a value that a field does not take.
    """
    made: T = grammar.build(kind, {name: grammar.parse(text, {}) for name, text in fields.items()})
    return made
