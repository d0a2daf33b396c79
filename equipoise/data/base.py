"""The interface of a data set: uint8 images by index, their labels, and a spec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from typing import Annotated, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainValidator

from equipoise.core.types import ImageSpec, component

__all__ = ["Dataset", "DatasetConfig", "PathLike", "Pixels"]


def as_text(path: object) -> str:
    if not isinstance(path, str | Path):
        raise ValueError(f"expected a path, as text or pathlib.Path, got {path!r}")
    return str(path)


PathLike = Annotated[str | Path, PlainValidator(as_text)]
"""A path as a setting. Kept as text, so that a config's `repr` can be read back."""


Pixels = Annotated[int, Field(ge=1)]


class Dataset(Protocol):
    """Images that can be read by index, in any order, from several threads."""

    spec: ImageSpec
    labels: NDArray[np.int64] | None
    """(len,) class ids in [0, spec.num_classes), or None."""
    class_names: Sequence[str] | None
    slow: bool
    """Whether reading may wait (files to decode, a set on disk). If so, batches are read ahead in the background."""

    def __len__(self) -> int: ...

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n,) -> (n, C, H, W)."""


@component
class DatasetConfig(ABC):
    """Settings of a data set.

    mirror: training also reads each image mirrored, as one more image: see `mirrored`. Evaluations, held-out images and
        the images of other data sets made of this one are the images alone.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("mirror",)

    _: KW_ONLY
    mirror: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a data set that is made of another one with `mirror`. Set `mirror` on the outer one."""
        for name, value in vars(self).items():
            if isinstance(value, DatasetConfig) and value.mirror:
                raise ValueError(
                    f"{type(self).__name__}.{name}={value!r} has mirror=True, which is a setting of the outer data "
                    f"set: give {type(self).__name__}(mirror=True)"
                )

    @abstractmethod
    def build(self) -> Dataset:
        """Open the data set, without mirrored images. A ValueError says what was given, what was expected and what to
        do.
        """
