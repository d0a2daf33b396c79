"""Image files in a folder or a zip, with classes from sub-folders or from StyleGAN's `dataset.json`."""

from __future__ import annotations

import errno
import io
import os
import posixpath
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from zipfile import ZIP_STORED

import numpy as np
from numpy.typing import NDArray

from equipoise.core.files import read_json
from equipoise.core.types import ImageSpec

from .arrays import check_labels, check_names
from .decode import check_target, decode, fit, is_grey, open_image
from .regular import open_regular, printable, reason
from .zips import open_entry, open_zip

__all__ = ["FileSource", "Folder", "ImageFiles", "Zip"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")

Classes = tuple[NDArray[np.generic] | None, Sequence[str] | None]
"""Labels (N,) and class names, or (None, None)."""


class FileSource(Protocol):
    """A collection of files, by name."""

    path: Path

    def names(self) -> list[str]:
        """Relative paths with forward slashes, sorted, without hidden files."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...


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
        return sorted(name for name in self._zip.namelist() if not name.endswith("/") and visible(name))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        info = self._zip.getinfo(name)
        with self._lock, open_entry(self._zip, info) as file:
            # Seeking back in compressed data unpacks everything before it again, and a header may cause thousands.
            yield file if info.compress_type == ZIP_STORED else io.BytesIO(file.read())


def visible(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


class ImageFiles:
    """The images of a `FileSource`, decoded when they are read.

    Classes come from `dataset.json` if there is one: {"labels": [[name, class], ...]}, null for unlabelled data, and
    optionally "class_names". Otherwise the top sub-folders are classes, in alphabetical order. A sub-folder that holds
    everything does not count: a flat folder, or a folder within a folder, is unlabelled.

    resolution: None requires square images of one size; a number crops to the centre square and resizes.
    channels: None is grey if every image is grey, else colour; 1 or 3 converts.

    With both given no image is opened here. Otherwise the header of each is read, once.

    Raises:
        ValueError: if there are no images, one cannot be read, sizes differ, or labels are incomplete.
    """

    spec: ImageSpec
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None
    slow: bool = True

    def __init__(self, source: FileSource, *, resolution: int | None = None, channels: int | None = None):
        check_target(resolution, channels)
        names = source.names()
        self.source = source
        self.names = [name for name in names if name.lower().endswith(EXTENSIONS)]
        if not self.names:
            raise ValueError(
                f"{source.path} holds no images: looked for {', '.join(EXTENSIONS)}, found {len(names)} other files"
            )
        tables = [name for name in names if PurePosixPath(name).name == "dataset.json"]
        table = min(tables, key=len, default=None)
        labels, self.class_names = self.from_folders() if table is None else self.from_json(table)
        self.labels, num_classes = check_labels(labels, len(self), self.class_names, str(source.path))
        if resolution is None or channels is None:
            resolution, channels = self.scan(resolution, channels)
        self.spec = ImageSpec(resolution, channels, num_classes)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([self.load(self.names[i]) for i in indices])

    def load(self, name: str) -> NDArray[np.uint8]:
        try:
            with self.source.open(name) as file:
                data = file.read()
            return fit(decode(data), self.spec.resolution, self.spec.channels)
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise self.unreadable(name, error) from error

    def where(self, name: str) -> str:
        """Path of a file, for messages. Names in a zip may begin with a slash."""
        return f"{self.source.path}/{printable(name.lstrip('/'))}"

    def unreadable(self, name: str, error: Exception) -> ValueError:
        return ValueError(f"{self.where(name)} cannot be read as an image ({reason(error)}): repair it or remove it")

    def scan(self, resolution: int | None, channels: int | None) -> tuple[int, int]:
        """Resolution and channels, from the headers of the files."""
        sizes: dict[tuple[int, int], str] = {}  # size -> first file of that size
        grey = True
        for name in self.names:
            try:
                with self.source.open(name) as file, open_image(file) as image:
                    sizes.setdefault(image.size, name)
                    grey = grey and is_grey(image)
            except Exception as error:
                raise self.unreadable(name, error) from error
            if resolution is None:
                self.check_sizes(sizes)
            elif not grey:
                break
        return resolution or next(iter(sizes))[0], channels or (1 if grey else 3)

    def check_sizes(self, sizes: dict[tuple[int, int], str]) -> None:
        fix = (
            "Pass resolution=... to crop the centre and resize, or run "
            f"`equipoise data prepare {self.source.path} OUT --resolution R` once"
        )
        (first, first_name), *others = sizes.items()
        if others:
            second, second_name = others[0]
            raise ValueError(
                f"{self.source.path} holds images of different sizes: {printable(first_name)} has "
                f"{first[0]}x{first[1]} pixels, {printable(second_name)} has {second[0]}x{second[1]}. {fix}"
            )
        if first[0] != first[1]:
            raise ValueError(f"{self.where(first_name)} has {first[0]}x{first[1]} pixels, which is not square. {fix}")

    def from_folders(self) -> Classes:
        """Classes from the topmost directories in which the paths differ."""
        paths = [PurePosixPath(name.lstrip("/")).parts for name in self.names]  # as unzip does
        shared = len(PurePosixPath(posixpath.commonpath(["/".join(path[:-1]) for path in paths])).parts)
        tops = [path[shared] if len(path) > shared + 1 else None for path in paths]
        folders = sorted({top for top in tops if top is not None})
        if not folders:
            return None, None
        if None in tops:
            raise ValueError(
                f"{self.source.path} holds class folders ({printable(folders[0])}, ...) and images beside them "
                f"({printable(self.names[tops.index(None)])}, ...): move each of these into a folder"
            )
        ids = {folder: i for i, folder in enumerate(folders)}
        return np.array([ids[top] for top in tops if top is not None]), folders

    def from_json(self, table: str) -> Classes:
        """Classes from `dataset.json`, whose names are relative to its own directory."""
        where, parent = self.where(table), PurePosixPath(table).parent
        try:
            with self.source.open(table) as file:
                content = read_json(file.read(), table)
            pairs, class_names = content.get("labels"), check_names(content.get("class_names"), table)
            if pairs is None:
                return None, None
            classes = {(parent / name.replace("\\", "/")).as_posix(): label for name, label in pairs}
        except Exception as error:  # a damaged zip makes zipfile raise nearly anything
            raise ValueError(
                f'{where} should hold {{"labels": [[file, class], ...]}} or null: {reason(error)}'
            ) from error
        missing = [name for name in self.names if name not in classes]
        absent = sorted(classes.keys() - set(self.names))
        if missing or absent:
            raise ValueError(
                f"{where} labels {len(classes)} files: {len(missing)} of the {len(self)} images are without a label"
                f"{example(missing)} and {len(absent)} of the labels without an image{example(absent)}"
            )
        labels = [classes[name] for name in self.names]
        if not all(type(label) is int for label in labels):
            raise ValueError(f'{where}: a class must be a whole number from 0, as in ["a.png", 3]')
        return np.array(labels), class_names


def example(names: Sequence[str]) -> str:
    return f" ({printable(names[0])}, ...)" if names else ""
