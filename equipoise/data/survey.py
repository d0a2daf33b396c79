"""A look at image files before they are decoded: sizes, grey or colour, broken headers, files that are there twice."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from .decode import is_grey, open_image
from .regular import reason
from .sources import FileSource

__all__ = ["Survey", "duplicates", "survey"]

END = 1 << 14


@dataclass
class Survey:
    """Facts from the headers of files.

    sizes: the first file of each size (width, height).
    count: the number of files of each size.
    grey: whether all are grey.
    broken: for each file None, or its name and why its header cannot be read.
    """

    sizes: dict[tuple[int, int], str] = field(default_factory=dict)
    count: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    grey: bool = True
    broken: list[tuple[str, str] | None] = field(default_factory=list)


def survey(source: FileSource, names: Sequence[str]) -> Survey:
    seen = Survey()
    for name in names:
        try:
            with source.open(name) as file, open_image(file) as image:
                size, grey = image.size, is_grey(image)
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            seen.broken.append((name, reason(error)))
        else:
            seen.broken.append(None)
            seen.sizes.setdefault(size, name)
            seen.count[size] += 1
            seen.grey = seen.grey and grey
    return seen


def duplicates(source: FileSource, names: Sequence[str]) -> list[tuple[str, str]]:
    """Files that hold the same bytes as an earlier one, with the first of these.

    Only files of equal size are opened, and only those with equal ends are read.
    """
    groups: dict[object, list[str]] = {0: list(names)}
    for key in (size_of, ends_of, hash_of):
        finer: dict[object, list[str]] = defaultdict(list)
        for before, group in groups.items():
            for name in group if len(group) > 1 else ():
                try:
                    finer[before, key(source, name)].append(name)
                except Exception:  # a broken file, which is named elsewhere
                    continue
        groups = dict(finer)
    return [(name, group[0]) for group in groups.values() for name in group[1:]]


def size_of(source: FileSource, name: str) -> int:
    return source.state(name)[0]


def ends_of(source: FileSource, name: str) -> bytes:
    """Hash of the first and the last bytes."""
    with source.open(name) as file:
        seen = hashlib.sha256(file.read(END))
        file.seek(max(file.seek(0, os.SEEK_END) - END, 0))
        seen.update(file.read(END))
    return seen.digest()


def hash_of(source: FileSource, name: str) -> bytes:
    with source.open(name) as file:
        return hashlib.sha256(file.read()).digest()
