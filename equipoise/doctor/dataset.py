"""Measurements of a data set: constant images, copies, range of values, empty classes, and passes over it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from equipoise.data import Dataset

__all__ = ["LOOKED_AT", "of_images"]

LOOKED_AT = 1024
"""Most images that are read."""


def of_images(dataset: Dataset, most: int = LOOKED_AT) -> Mapping[str, float]:
    """Facts about up to `most` images, spread evenly over the data set, by the names of statistics.

    data_constant: share of images of one colour.  data_copies: share of images that equal another one looked at.
    data_range: highest less lowest value over all images, as a share of 255.
    data_empty: classes without an image, of those in the spec.
    """
    count = len(dataset)
    chosen = np.linspace(0, count - 1, min(count, most)).astype(np.int64)
    pixels = dataset.read(chosen)
    flat = pixels.reshape(len(pixels), pixels.shape[1], -1)
    low, high = flat.min(-1), flat.max(-1)
    kinds = len({image.tobytes() for image in pixels})
    found = {
        "doctor/data_constant": float((low == high).all(-1).mean()),
        "doctor/data_copies": 1 - kinds / len(pixels),
        "doctor/data_range": float(int(high.max()) - int(low.min())) / 255,
    }
    if dataset.labels is not None and dataset.spec.num_classes:
        present = np.bincount(dataset.labels, minlength=dataset.spec.num_classes)
        found["doctor/data_empty"] = float((present == 0).sum())
    return found
