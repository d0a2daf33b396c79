"""Collections of files: a folder, a zip, tars."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Protocol
from zipfile import ZIP_STORED

from .kinds import outside, visible
from .regular import open_regular
from .tars import members
from .zips import open_entry, open_zip

__all__ = ["FileSource", "Folder", "Tars", "Zip"]


class FileSource(Protocol):
    """A collection of files, by name."""

    path: Path

    def names(self) -> list[str]:
        """Relative paths with forward slashes, sorted, without hidden files. Names in an archive may point outside."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...

    def state(self, name: str) -> tuple[int, int]:
        """Size of the file in bytes, and a number that changes when its content does."""

    def inside(self, name: str) -> str:
        """The path of a file in its set, without the name of the archive that holds it."""


class Folder:
    """The files under a directory. Links are followed, and each directory is read once.

    A directory that links also reach keeps its own name. So links into the folder add no images, and a link to a
    directory around it does not loop.
    """

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        """Sorted paths. Raises ValueError for a sub-folder that cannot be read."""
        try:
            return sorted(self.walk())
        except OSError as error:
            raise ValueError(
                f"{error.filename or self.path} cannot be read ({error.strerror or error}): allow it, or move it "
                f"out of {self.path}"
            ) from error

    def walk(self) -> Iterator[str]:
        seen: set[tuple[int, int]] = set()
        folders, links = [""], deque[str]()
        while folders or links:
            parent = folders.pop() if folders else links.popleft()
            status = (self.path / parent).stat()
            if (place := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(place)
            with os.scandir(self.path / parent) as entries:
                inside = sorted((entry for entry in entries if visible(entry.name)), key=lambda entry: entry.name)
            for entry in inside:
                name = parent + entry.name
                if not is_folder(entry):
                    yield name
                elif entry.is_symlink():
                    links.append(f"{name}/")
                else:
                    folders.append(f"{name}/")

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return open_regular(self.path / name)

    def state(self, name: str) -> tuple[int, int]:
        status = (self.path / name).stat()
        return status.st_size, status.st_mtime_ns

    def inside(self, name: str) -> str:
        return name


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether `entry` is a directory or a link to one. A link to itself counts as an unreadable file."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


class Zip:
    """The files in a zip. Thread-safe: one handle, one reader at a time. A pickled copy opens its own handle."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._zip = open_zip(path, str(path))

    def __reduce__(self) -> tuple[type[Zip], tuple[Path]]:
        return Zip, (self.path,)

    def names(self) -> list[str]:
        return sorted(
            name for name in self._zip.namelist() if not name.endswith("/") and (visible(name) or outside(name))
        )

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        info = self._zip.getinfo(name)
        with self._lock, open_entry(self._zip, info) as file:
            # Seeking back in compressed data unpacks everything before it again, and a header may cause thousands.
            yield file if info.compress_type == ZIP_STORED else io.BytesIO(file.read())

    def state(self, name: str) -> tuple[int, int]:
        info = self._zip.getinfo(name)
        return info.file_size, info.CRC

    def inside(self, name: str) -> str:
        return name.lstrip("/")  # as unzip does


class Tars:
    """The files in one or more uncompressed tars, such as the shards of a WebDataset. Thread-safe.

    Of several tars, names begin with the name of their tar.
    """

    def __init__(self, path: Path, tars: Sequence[Path]):
        self.path = path
        self._several = len(tars) > 1
        self._changed = {tar: tar.stat().st_mtime_ns for tar in tars}
        self._members = {
            f"{tar.name}/{name}" if self._several else name: (tar, *place)
            for tar in tars
            for name, place in members(tar).items()
        }

    def names(self) -> list[str]:
        return sorted(name for name in self._members if visible(name) or outside(name))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        tar, start, size = self._members[name]
        with open_regular(tar) as file:
            file.seek(start)
            yield io.BytesIO(file.read(size))

    def state(self, name: str) -> tuple[int, int]:
        tar, start, size = self._members[name]
        return size, hash((start, self._changed[tar]))

    def inside(self, name: str) -> str:
        return name.partition("/")[2] if self._several else name.lstrip("/")
