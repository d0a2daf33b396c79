"""Image files in a folder or a zip, with classes from sub-folders or from StyleGAN's `dataset.json`."""

from __future__ import annotations

import json
import os
import posixpath
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..types import ImageSpec
from .arrays import check_labels
from .decode import check_target, decode, fit, is_grey

__all__ = ["FileSource", "Folder", "ImageFiles", "Zip"]

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")

Classes = tuple[NDArray[np.generic] | None, Sequence[str] | None]
"""Labels (N,) and class names, or (None, None)."""


class FileSource(Protocol):
    """Files by name."""

    path: Path

    def names(self) -> list[str]:
        """Relative paths with forward slashes, sorted; hidden files left out."""

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]: ...


class Folder:
    """The files under a directory. Links are followed."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        walk = os.walk(self.path, followlinks=True)
        files = (Path(parent, name).relative_to(self.path).as_posix() for parent, _, names in walk for name in names)
        return visible(files)

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return (self.path / name).open("rb")


class Zip:
    """The files in a zip. Safe in several threads: one handle, one reader at a time. A copy has a handle of its own."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} is not a readable zip file ({error}): copy it again") from error

    def __reduce__(self) -> tuple[type[Zip], tuple[Path]]:
        return Zip, (self.path,)

    def names(self) -> list[str]:
        return visible(name for name in self._zip.namelist() if not name.endswith("/"))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with self._lock, self._zip.open(name) as file:
            yield file


def visible(names: Iterator[str]) -> list[str]:
    return sorted(n for n in names if not any(p.startswith(".") or p == "__MACOSX" for p in PurePosixPath(n).parts))


class ImageFiles:
    """The images of a `FileSource`, decoded when they are read.

    Classes come from `dataset.json` if there is one ({"labels": [[name, class], ...]}, or null for no labels;
    optionally "class_names"), else from the top sub-folders in alphabetical order. A sub-folder that holds everything
    is no class: a flat folder, or a folder within a folder, is unlabelled.

    resolution: None requires square images of one size; a number crops to the centre square and resizes.
    channels: None is grey if every image is grey, else colour; 1 or 3 converts.
        With both given no file is touched here; otherwise the header of each is read, once.

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
            image = decode(data)
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise self.unreadable(name, error) from error
        return fit(image, self.spec.resolution, self.spec.channels)

    def unreadable(self, name: str, error: Exception) -> ValueError:
        return ValueError(f"{self.source.path / name} cannot be read as an image ({error}): repair it or remove it")

    def scan(self, resolution: int | None, channels: int | None) -> tuple[int, int]:
        """Resolution and channels, from the headers of the files."""
        sizes: dict[tuple[int, int], str] = {}  # size -> first file that has it
        grey = True
        for name in self.names:
            try:
                with self.source.open(name) as file, Image.open(file) as image:
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
            other, other_name = others[0]
            raise ValueError(
                f"{self.source.path} holds images of different sizes: {first_name} has {first[0]}x{first[1]} pixels, "
                f"{other_name} has {other[0]}x{other[1]}. {fix}"
            )
        if first[0] != first[1]:
            raise ValueError(
                f"{self.source.path / first_name} has {first[0]}x{first[1]} pixels, which is not square. {fix}"
            )

    def from_folders(self) -> Classes:
        """Classes from the first directories in which the paths differ."""
        paths = [PurePosixPath(name).parts for name in self.names]
        shared = len(PurePosixPath(posixpath.commonpath(["/".join(path[:-1]) for path in paths])).parts)
        tops = [path[shared] if len(path) > shared + 1 else None for path in paths]
        folders = sorted({top for top in tops if top is not None})
        if not folders:
            return None, None
        if None in tops:
            raise ValueError(
                f"{self.source.path} holds class folders ({folders[0]}, ...) and images beside them "
                f"({self.names[tops.index(None)]}, ...): move each of these into a folder"
            )
        ids = {folder: i for i, folder in enumerate(folders)}
        return np.array([ids[top] for top in tops if top is not None]), folders

    def from_json(self, table: str) -> Classes:
        """Classes from `dataset.json`, whose names are relative to its own directory."""
        where, parent = self.source.path / table, PurePosixPath(table).parent
        try:
            with self.source.open(table) as file:
                content = json.load(file)
            pairs, class_names = content.get("labels"), content.get("class_names")
            if pairs is None:
                return None, None
            classes = {(parent / name.replace("\\", "/")).as_posix(): label for name, label in pairs}
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f'{where} should hold {{"labels": [[file, class], ...]}} or null: {error}') from error
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
    return f" ({names[0]}, ...)" if names else ""
