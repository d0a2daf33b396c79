"""Data sets of other libraries: any torch `Dataset` of images, and Hugging Face's `datasets`."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence, Sized
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field

from equipoise.core.extras import install
from equipoise.core.types import ImageSpec, component

from .arrays import check_labels
from .base import Dataset, DatasetConfig, Pixels
from .decode import Fit, Shape, enlargement, is_grey, target_shape, upright
from .decode import fit as fitted
from .remarks import remark, remark_if_few

__all__ = ["HuggingFace", "TorchImages"]

IMAGE = ("image", "img", "jpg", "png", "x", "pixel_values")
LABEL = ("label", "labels", "fine_label", "target", "cls", "y")
"""Columns, where an item is a table's row; the first that is there counts."""


class Indexed(Protocol):
    """A torch `Dataset` with a length, or anything like it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class TorchImages:
    """The images of a torch `Dataset` with a length, such as torchvision's, as a `Dataset` of this library.

    An item is an image, a tuple (image, label, ...) or a mapping with "image" and "label". An image is a Pillow image,
    a tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W), uint8 or floats in [0, 1]; C is 1 or 3. Leave the
    normalisation to [-1, 1] out of its transforms: training does it.

    resolution: None requires square images of the first one's size; a number makes squares of that size.
    shape: (H, W) makes rectangles instead.
    channels: None is the first image's: 1 grey, 3 colour.
    fit: how an image gets another shape, as in `Images`.
    labels: "auto" takes `targets` or `labels` of `dataset` if they begin with the first item's label, else the labels
        of all items, which reads them once. An array holds the label of each image. None: unlabelled.
    class_names: a name per class; None takes `classes` of `dataset`, if there is one per class.

    Items are read one at a time, since few data sets allow threads.

    Raises:
        ValueError: for items of another form, or labels that do not count from 0.

    >>> TorchImages([(torch.zeros(3, 8, 8), 0), (torch.ones(3, 8, 8), 1)]).spec
    ImageSpec(resolution=8, channels=3, num_classes=2)
    """

    spec: ImageSpec
    labels: NDArray[np.int64] | None
    class_names: Sequence[str] | None
    slow: bool = True

    def __init__(
        self,
        dataset: Indexed,
        *,
        resolution: int | None = None,
        shape: Shape | None = None,
        channels: Literal[1, 3] | None = None,
        fit: Fit = "crop",
        labels: Literal["auto"] | Sequence[int] | NDArray[np.integer[Any]] | torch.Tensor | None = "auto",
        class_names: Sequence[str] | None = None,
    ):
        target = target_shape(resolution, shape, channels)
        if not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"TorchImages takes a data set with a length and items by index, and {type(dataset).__name__} lacks "
                "them: save the images of a stream in a folder, or write it with `equipoise data prepare`"
            )
        if len(dataset) == 0:
            raise ValueError(f"{type(dataset).__name__} holds no images")
        self.dataset, self.fit, self._lock = dataset, fit, threading.Lock()
        image, label = parts_of(dataset[0])
        first = as_picture(image, "item 0")
        if target is None and first.width != first.height:
            raise ValueError(
                f"item 0 has {first.width}x{first.height} pixels, which is not square: give TorchImages(..., "
                "resolution=R), which crops, or pads or stretches with fit=; shape=(HEIGHT, WIDTH) makes rectangles"
            )
        height, width = target or (first.height, first.height)
        self._same = target is None
        if (factor := enlargement(first.size, (height, width), fit)) > 1:
            remark(f"item 0 of {type(dataset).__name__} is enlarged {factor:.3g} times: G learns the blur")
        given = labels_of(dataset, label) if isinstance(labels, str) else labels
        ids = None if given is None else np.asarray(given)
        names = class_names if class_names is not None else names_of(dataset, ids)
        self.labels, num_classes = check_labels(ids, len(dataset), names, type(dataset).__name__)
        self.class_names = None if ids is None else names
        self.spec = ImageSpec(height, channels or (1 if is_grey(first) else 3), num_classes, width)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(n,) -> (n, C, H, W). Raises ValueError for an image of another form than the first."""
        return np.stack([self.load(index) for index in indices.tolist()])

    def load(self, index: int) -> NDArray[np.uint8]:
        with self._lock:
            image = as_picture(parts_of(self.dataset[index])[0], f"item {index}")
        height, width = self.spec.shape
        if self._same and image.size != (width, height):
            raise ValueError(
                f"item {index} has {image.width}x{image.height} pixels, and item 0 has {self.spec.size}: give "
                "TorchImages(..., resolution=R)"
            )
        return fitted(image, self.spec.shape, self.spec.channels, self.fit)


def parts_of(item: Any) -> tuple[Any, Any]:
    """Image and label of an item; None for no label."""
    if isinstance(item, Mapping):
        image, label = (next((item[name] for name in names if name in item), None) for names in (IMAGE, LABEL))
        if image is None:
            raise ValueError(f"an item has the columns {', '.join(map(str, item))}: expected one of {', '.join(IMAGE)}")
        return image, label
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def as_picture(image: Any, where: str) -> Image.Image:
    """A Pillow image of mode L or RGB. Raises ValueError for anything else."""
    if isinstance(image, Image.Image):
        return upright(ImageOps.exif_transpose(image))  # a copy: the data set may keep its own
    if isinstance(image, Mapping) and isinstance(image.get("bytes"), bytes):  # of `datasets`, undecoded
        return upright(Image.open(io.BytesIO(image["bytes"])))
    if isinstance(image, torch.Tensor):
        array = image.numpy(force=True)
        array = np.moveaxis(array, 0, 2) if array.ndim == 3 else array
    elif isinstance(image, np.ndarray):
        array = image
    else:
        raise ValueError(
            f"{where} is of type {type(image).__name__}: expected a Pillow image, a tensor (C, H, W) or an array "
            "(H, W, C), alone or first in a tuple with its label"
        )
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise ValueError(
            f"{where} has the shape {tuple(image.shape)}: expected a tensor (C, H, W) or an array (H, W, C) of 1 or 3 "
            "channels"
        )
    bytes_ = to_bytes(array, where)
    return Image.fromarray(
        bytes_[:, :, 0] if bytes_.ndim == 3 and bytes_.shape[2] == 1 else np.ascontiguousarray(bytes_)
    )


def to_bytes(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """uint8 as it is; floats in [0, 1] as round(255 x). Raises ValueError for other types and ranges."""
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{where} holds {array.dtype}: expected uint8 in [0, 255], or floats in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{where} holds floats from {low:.3g} to {high:.3g}: expected [0, 1]. Leave Normalize out of the "
            "transforms, or scale them"
        )
    scaled: NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
    return scaled


def labels_of(dataset: Any, first: Any) -> NDArray[np.generic] | None:
    """Labels of all items; None if the first has none."""
    if first is None or not is_class(first):
        return None
    for name in ("targets", "labels", "_labels"):
        given = getattr(dataset, name, None)
        if isinstance(given, list | tuple | torch.Tensor | np.ndarray) and len(given) == len(dataset):
            stored = np.asarray(given)
            if stored.ndim == 1 and stored.dtype.kind in "iu" and stored[0] == int(first):
                return stored
    labels = [parts_of(dataset[i])[1] for i in range(len(dataset))]
    other = next((i for i, label in enumerate(labels) if not is_class(label)), None)
    if other is not None:
        raise ValueError(f"item {other} has the label {labels[other]!r}, and item 0 a whole number: give labels=None")
    return np.array([int(label) for label in labels])


def is_class(label: Any) -> bool:
    """Whether `label` is a whole number; a caption, attributes or boxes are none."""
    if isinstance(label, torch.Tensor | np.ndarray | np.generic):
        kind = np.asarray(label)
        return kind.ndim == 0 and kind.dtype.kind in "iu"
    return type(label) is int


def names_of(dataset: Any, labels: NDArray[np.generic] | None) -> Sequence[str] | None:
    """`classes` of `dataset`, if they name every label."""
    classes = getattr(dataset, "classes", None)
    if labels is None or labels.dtype.kind not in "iu" or not isinstance(classes, list | tuple):
        return None
    return [str(name) for name in classes] if len(classes) > labels.max() else None


@component
class HuggingFace(DatasetConfig):
    """A data set of images from Hugging Face's hub or a folder, through their library `datasets` (extra `hf`).

    path: as in `datasets.load_dataset`: "zalando-datasets/fashion_mnist", or "imagefolder" with `folder`.
    config: the name of a configuration of the set, or None.
    split: "train", "test", "train[:1000]".
    image, label: columns; None takes the first of the usual names. A column of classes gives their names, too.
    folder: `data_dir` of `load_dataset`.
    resolution, channels, fit, shape: as in `Images`.
    """

    unsaid: ClassVar[tuple[str, ...]] = ("shape", "mirror")

    path: Annotated[str, Field(min_length=1)]
    split: str = "train"
    config: str | None = None
    image: str | None = None
    label: str | None = None
    folder: str | None = None
    resolution: Pixels | None = None
    channels: Literal[1, 3] | None = None
    fit: Fit = "crop"
    shape: tuple[Pixels, Pixels] | None = None

    def build(self) -> Dataset:
        try:
            datasets = import_module("datasets")
        except ImportError as error:
            raise ValueError(f"HuggingFace reads data with the package datasets: {install('hf')}") from error
        table = datasets.load_dataset(self.path, self.config, split=self.split, data_dir=self.folder)
        features = table.features
        image = self.image or next((name for name in IMAGE if name in features), None)
        if image is None or image not in features:
            raise ValueError(
                f"{self.path} has the columns {', '.join(features)}: give the column of images, as in "
                f"HuggingFace({self.path!r}, image={next(iter(features), 'photo')!r})"
            )
        label = self.label or next((name for name in LABEL if name in features), None)
        if self.label is not None and label not in features:
            raise ValueError(f"{self.path} has the columns {', '.join(features)}, and not label={self.label!r}")
        names = None if label is None else getattr(features[label], "names", None)
        made = TorchImages(
            Column(table, image),
            resolution=self.resolution,
            shape=self.shape,
            channels=self.channels,
            fit=self.fit,
            labels=None if label is None else whole(table[label], self.path, label),
            class_names=names,
        )
        remark_if_few(len(made), self.path)
        return made


class Column:
    """The images of a table."""

    def __init__(self, table: Any, name: str):
        self.table, self.name = table, name

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Any:
        return self.table[index][self.name]


def whole(labels: Sequence[Any], name: str, column: str) -> NDArray[np.int64]:
    """Labels as whole numbers. Raises ValueError for others, such as captions."""
    values = list(labels)
    if not all(is_class(label) for label in values):
        raise ValueError(
            f"{name}: the column {column} holds {values[0]!r}, ...: expected whole numbers from 0. Give another "
            "column, label=..."
        )
    return np.array([int(label) for label in values])
