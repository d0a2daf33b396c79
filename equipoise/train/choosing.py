"""Choose a config for pictures and a machine: look at the pictures, time the networks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equipoise.compute.described import described
from equipoise.compute.distributed import this_device
from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec
from equipoise.data import DatasetConfig, DataWarning, HuggingFace, Images, handedness
from equipoise.data.files import ImageFiles
from equipoise.nn.sizes import require_square
from equipoise.recipes.auto import Choice, Facts, Machine, Pictures, choose

from .pace import images_per_second

__all__ = ["choice_for", "pictures_of"]

LOOKED_AT_SIZE = 32


def choice_for(
    data: DatasetConfig,
    *,
    minutes: float = 60.0,
    kimg: float | None = None,
    device: str = "auto",
    changes: Mapping[str, Any] | None = None,
) -> Choice:
    """The config for `data` on this machine. It takes some seconds: pictures are read, updates are timed.

    minutes: time of the run.  kimg: its length in thousands of images, instead.  device: as `Compute.device`.
    changes: fields of the config that are given, by dotted name, such as {"d_optim.lr": 1e-3}.

    Raises:
        ValueError: for data that cannot be opened, or sizes that the networks cannot make.
    """
    own = this_device(device)
    pictures = pictures_of(data)

    def speed(cfg: TrainConfig, size: int) -> float:
        return images_per_second(cfg, ImageSpec(size, pictures.channels, pictures.classes), own)

    return choose(Facts(pictures, Machine(own.type, described(own)), minutes, kimg), speed, changes)


def pictures_of(data: DatasetConfig) -> Pictures:
    """Look at a data set. Pictures of a folder or an archive may still have any size."""
    any_size = isinstance(data, Images | HuggingFace) and data.resolution is None and data.shape is None

    def at(size: int) -> DatasetConfig:
        return replace(data, resolution=size) if isinstance(data, Images | HuggingFace) and any_size else data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the run will give them
        dataset = at(LOOKED_AT_SIZE).build()
        require_square(dataset.spec, "auto")
        sides, copies = [dataset.spec.resolution], 0
        if isinstance(dataset, ImageFiles):
            sides = [min(size) for size, count in dataset.sizes.items() for _ in range(count)]
            copies = dataset.copies
        elif isinstance(data, Images):
            held = data.build().spec
            require_square(held, "auto")
            sides = [held.resolution]
    return Pictures(
        at,
        sizes=None if any_size else (dataset.spec.resolution,),
        num=len(dataset),
        side=int(np.median(sides)),
        channels=dataset.spec.channels,
        classes=dataset.spec.num_classes,
        handedness=handedness(dataset),
        copies=copies,
    )
