"""NumPy's `.npy` format, for untrusted files: sizes are checked before memory is allocated."""

from __future__ import annotations

import math
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .regular import reason

__all__ = ["Header", "read_array", "read_header"]

LONGEST = 2000  # characters of a header; NumPy's own has about 120


class Header(NamedTuple):
    """Header of an array.

    fortran: whether the first index varies fastest.
    offset: bytes before the data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool
    offset: int


def read_header(file: IO[bytes], size: int, where: str) -> Header:
    """The header of the array in `file`, which has `size` bytes.

    Raises:
        ValueError: if the file is not a plain array, holds Python objects, or promises more or fewer bytes than it has.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"its format is version {version}")  # for structured types and huge headers
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=LONGEST)
    except Exception as error:  # NumPy evaluates the header, which may raise nearly anything
        raise ValueError(f"{where} is not a plain NumPy array: {reason(error)}") from error
    if dtype.hasobject:
        raise ValueError(f"{where} is not a plain NumPy array: it holds Python objects, which are pickled")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{where} is not a plain NumPy array: its shape is {shape}")
    promised, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if promised != there:
        raise ValueError(
            f"{where} promises {dtype} of shape {shape}, {promised} bytes, and holds {there}: it is damaged"
        )
    return Header(shape, dtype, fortran, file.tell())


def read_array(file: IO[bytes], size: int, where: str) -> NDArray[np.generic]:
    """The array in `file`, which has `size` bytes. Raises ValueError as `read_header`."""
    read_header(file, size, where)
    file.seek(0)
    array: NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=LONGEST)
    return array
