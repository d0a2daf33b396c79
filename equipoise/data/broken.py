"""Image files that cannot be read: all of them in one message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .regular import printable
from .remarks import remark

__all__ = ["Broken", "BrokenFilesError"]

SHOWN = 10


class Broken(NamedTuple):
    """A file that cannot be read as an image, and why."""

    name: str
    why: str


class BrokenFilesError(ValueError):
    """Some files cannot be read as images. The message names ten of them and their number.

    path: the set that holds them.
    files: the broken ones, by index of their image.
    count: the number of files that were looked at.
    images: the images that were asked for, black where a file is broken; None if only headers were read.
    """

    def __init__(self, path: Path, files: Mapping[int, Broken], count: int, images: NDArray[np.uint8] | None = None):
        self.path, self.files, self.count, self.images = path, dict(sorted(files.items())), count, images
        (first, why), *others = self.files.values()
        more = f"; nor can {len(others)} more of {count} files: {listed(others[: SHOWN - 1], len(others))}"
        super().__init__(
            f"{path}/{printable(first.lstrip('/'))} cannot be read as an image ({why})"
            f"{f'{more}. Repair them or remove them' if others else ': repair it or remove it'}, or leave out what is "
            "broken with skip_broken=True (equipoise data prepare --skip-broken)"
        )

    def __reduce__(self) -> tuple[type[BrokenFilesError], tuple[object, ...]]:
        return BrokenFilesError, (self.path, self.files, self.count, self.images)

    def remark(self) -> None:
        """Warn that the files are left out."""
        files = "1 broken file" if len(self.files) == 1 else f"{len(self.files)} broken files"
        remark(
            f"{self.path}: left out {files} of {self.count}: {listed([*self.files.values()][:SHOWN], len(self.files))}"
        )


def listed(files: list[Broken], count: int) -> str:
    dots = ", ..." if count > len(files) else ""
    return ", ".join(f"{printable(name, 60)} ({printable(why, 40)})" for name, why in files) + dots
