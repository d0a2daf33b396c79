"""The pickles of data sets, read without calling anything."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equipoise.core.pickled_arrays import ARRAYS, array_of
from equipoise.core.pickles import Call, read_pickle

__all__ = ["images_of", "read_batch"]


def read_batch(content: bytes) -> Any:
    """The value of a pickle of Python's own types and arrays; the latter are recorded calls.

    Raises:
        ValueError: if it is damaged, or calls anything else.
    """
    return read_pickle(io.BytesIO(content), ARRAYS)


def images_of(value: object) -> NDArray[np.uint8] | None:
    """An array of bytes; None if `value` is not an array. Raises ValueError for an array of other numbers."""
    if not isinstance(value, Call):
        return None
    values = array_of(value)
    if values.dtype != np.uint8:
        raise ValueError(f"its images are {values.dtype.str[1:]} and not bytes")
    return values
