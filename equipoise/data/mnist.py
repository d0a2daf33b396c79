"""Handwritten digits and Fashion-MNIST: 28x28, grey, ten classes."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from equipoise.core.types import component

from .arrays import ArrayDataset, Arrays, Split, read_npz
from .base import DatasetConfig, PathLike
from .download import cache_directory, fetch
from .idx import read_idx_directory
from .regular import expanded

__all__ = ["MNIST", "Digits", "FashionMNIST"]

DIGITS = tuple("0123456789")


@component
class Digits(DatasetConfig):
    """The 10,000 digits that come with the library: the first 1,000 of each class of MNIST's training set."""

    def build(self) -> ArrayDataset:
        with resources.files(__package__).joinpath("digits.npz").open("rb") as file:
            images, labels, _ = read_npz(file, "digits.npz")
        return ArrayDataset(images, labels, DIGITS)


@dataclass(frozen=True)
class Published:
    """A published data set of four gzipped IDX files.

    title: name for messages.
    name: name of its folder in the cache, and of its .npz file.
    mirrors: URL prefixes; each is followed by one of the four file names.
    sha256: hashes of the uncompressed files, by name.
    folders: system directories that may hold the files.
    """

    title: str
    name: str
    class_names: tuple[str, ...]
    mirrors: tuple[str, ...]
    sha256: dict[str, str]
    folders: tuple[Path, ...] = ()

    def open(self, path: PathLike | None, split: Split) -> ArrayDataset:
        where = [expanded(path)] if path is not None else [place for place in self.folders if place.is_dir()]
        arrays = next((held for place in where if (held := self.look(place, split)) is not None), None)
        if arrays is None and path is None:
            where = [cache_directory() / self.name]
            self.download(where[0])  # the missing files only: resumes an interrupted download
            arrays = self.look(where[0], split)
        if arrays is None:
            raise ValueError(
                f"no {self.title} ({split}) at {where[0]}: expected a directory with train-images-idx3-ubyte[.gz] and "
                f"its three companions or {self.name}.npz, or an .npz file with x_train, y_train, x_test, y_test"
            )
        if arrays.labels is None:
            raise ValueError(f"{where[0]} holds images of {self.title} but no y_{split}")
        return ArrayDataset(arrays.images, arrays.labels, self.class_names, where=self.title)

    def look(self, place: Path, split: Split) -> Arrays | None:
        """The arrays in a file or directory, or None if there are none."""
        npz = place / f"{self.name}.npz" if place.is_dir() else place
        arrays = read_idx_directory(place, split=split)
        if arrays is None and npz.is_file():
            arrays = read_npz(npz, str(npz), split=split)
        return arrays

    def download(self, folder: Path) -> None:
        """Download the missing ones among the four files."""
        try:
            for name, sha256 in self.sha256.items():
                target = folder / f"{name}.gz"
                if not target.exists():
                    fetch([f"{mirror}{target.name}" for mirror in self.mirrors], target, sha256, opened=gzip.open)
        except ValueError as error:
            raise ValueError(
                f"{self.title} is neither here nor within reach: {error}\n"
                f"Put {', '.join(f'{name}.gz' for name in self.sha256)} into {folder} by hand, "
                "or pass path=..., a directory that holds them or an .npz file"
            ) from error


MNIST_FILES = Published(
    title="MNIST",
    name="mnist",
    class_names=DIGITS,
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    sha256={
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

FASHION_FILES = Published(
    title="Fashion-MNIST",
    name="fashion_mnist",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    folders=(Path("/usr/share/datasets/fashion-mnist"),),  # Debian's package dataset-fashion-mnist
)


@component
class MNIST(DatasetConfig):
    """MNIST, 60,000 training and 10,000 test digits (LeCun et al. 1998).

    path: a directory with the four IDX files (gzipped or not) or mnist.npz, or an .npz file with x_train, y_train,
        x_test, y_test. None looks in the cache ($EQUIPOISE_CACHE or ~/.cache/equipoise, then mnist) and downloads.
    split: the published part, "train" or "test".
    """

    path: PathLike | None = None
    split: Split = "train"

    def build(self) -> ArrayDataset:
        return MNIST_FILES.open(self.path, self.split)


@component
class FashionMNIST(DatasetConfig):
    """Fashion-MNIST, 60,000 training and 10,000 test pictures of clothes (Xiao et al. 2017).

    path: as for `MNIST`, with fashion_mnist in place of mnist. None looks first in the folder of Debian's package
        dataset-fashion-mnist.
    split: the published part, "train" or "test".
    """

    path: PathLike | None = None
    split: Split = "train"

    def build(self) -> ArrayDataset:
        return FASHION_FILES.open(self.path, self.split)
