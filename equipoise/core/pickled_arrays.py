"""Arrays of NumPy and tensors of PyTorch in a pickle that was read as inert values."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .pickles import Call, Name, read_pickle

__all__ = ["ARRAYS", "TENSORS", "array_of", "bytes_of", "dtype_of", "scalar_of", "tensor_of"]

HOMES = ("numpy.core", "numpy._core")
"""The place of NumPy's functions, before and since version 2."""
RECONSTRUCT, FROM_BUFFER, SCALAR = (
    tuple(f"{home}.{name}" for home in HOMES)
    for name in ("multiarray._reconstruct", "numeric._frombuffer", "multiarray.scalar")
)
ENCODE, NO_BYTES = "_codecs.encode", "__builtin__.bytes"
"""Bytes in pickles of protocol 2: a text and "latin1", or nothing."""
ARRAYS = frozenset({*RECONSTRUCT, *FROM_BUFFER, *SCALAR, "numpy.dtype", "numpy.ndarray", ENCODE, NO_BYTES})
"""Names in pickles of arrays and numbers."""

PARAMETER, TENSOR, STORAGE = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
)
TENSORS = frozenset({PARAMETER, TENSOR, STORAGE, "torch.Size", "collections.OrderedDict", ENCODE, NO_BYTES})
"""Names in pickles of tensors."""

KINDS = re.compile("b1|[iu][1248]|f[248]")
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
MAGIC = 0x1950A86A20F9469CFC6C
"""The first value of a file of `torch.save` in its form before 1.6."""
VERSION = 1001


# ---- NumPy -----------------------------------------------------------------------------------------------


def bytes_of(value: object) -> bytes:
    """Bytes, in any form that a pickle has for them. Raises ValueError for anything else."""
    if isinstance(value, Call) and value.of == ENCODE and len(value.args) == 2 and value.args[1] == "latin1":
        value = value.args[0]
    if isinstance(value, Call) and value.of == NO_BYTES and not value.args:
        return b""
    if isinstance(value, str):
        return value.encode("latin1")  # a UnicodeEncodeError is a ValueError
    if not isinstance(value, bytes):
        raise ValueError(f"it holds a {type(value).__name__} where bytes were expected")
    return value


def dtype_of(value: object) -> np.dtype[Any]:
    """The dtype of numbers. Raises ValueError for any other, such as of Python objects."""
    match value:
        case Call(of="numpy.dtype", args=(str() as kind, *_), state=(_, "<" | ">" | "|" | "=" as order, *_)):
            if not KINDS.fullmatch(kind):
                raise ValueError(f"its arrays hold {kind[:20]!r} and not numbers")
            dtype: np.dtype[Any] = np.dtype(order + kind)
            return dtype
    raise ValueError("it holds an array without a dtype")


def array_of(value: object) -> NDArray[Any]:
    """The array that a recorded call would make.

    Raises:
        ValueError: for anything else, or if the bytes do not fill the shape.
    """
    match value:
        case Call(of=of, state=(_, tuple() as shape, dtype, fortran, content)) if of in RECONSTRUCT:
            pass
        case Call(of=of, args=(content, dtype, tuple() as shape, "C" | "F" as order)) if of in FROM_BUFFER:
            fortran = order == "F"
        case _:
            raise ValueError(f"it holds a {kind_of(value)} where an array was expected")
    values, sizes = np.frombuffer(bytes_of(content), dtype_of(dtype)), sizes_of(shape)
    if math.prod(sizes) != len(values):
        raise ValueError(f"it holds {len(values)} numbers for an array of shape {sizes}")
    return values.reshape(sizes, order="F" if fortran else "C")


def scalar_of(value: object) -> int | float | bool:
    """The number that a recorded call of NumPy would make. Raises ValueError for anything else."""
    match value:
        case Call(of=of, args=(dtype, content)) if of in SCALAR:
            numbers = np.frombuffer(bytes_of(content), dtype_of(dtype))
            if len(numbers) == 1:
                number: int | float | bool = numbers[0].item()
                return number
    raise ValueError(f"it holds a {kind_of(value)} where a number was expected")


def kind_of(value: object) -> str:
    return value.of if isinstance(value, Call) else type(value).__name__


def sizes_of(value: object) -> tuple[int, ...]:
    """A shape or strides. Raises ValueError for anything else than a few whole numbers from 0."""
    if isinstance(value, Call) and value.of == "torch.Size" and len(value.args) == 1:
        value = value.args[0]
    if isinstance(value, tuple | list) and len(value) <= 8 and all(type(n) is int and 0 <= n < 1 << 48 for n in value):
        return tuple(value)
    raise ValueError("it holds an array whose shape is not a few whole numbers")


# ---- PyTorch ---------------------------------------------------------------------------------------------


def tensor_of(value: object) -> Tensor:
    """The tensor or parameter that a recorded call would make, on the CPU, in memory of its own.

    Raises:
        ValueError: for anything else, or if the storage does not hold each of its numbers once.
    """
    match value:
        case Call(of=of, args=(inner, *_)) if of == PARAMETER:
            value = inner
    match value:
        case Call(of=of, args=(Call(of=storage, args=(content,)), int() as offset, size, stride, *_)):
            if of == TENSOR and storage == STORAGE:
                return strided(storage_of(bytes_of(content)), offset, sizes_of(size), sizes_of(stride))
    raise ValueError(f"it holds a {kind_of(value)} where a tensor was expected")


def strided(values: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """A tensor of `size` from the numbers `values` (n,), in any order of its dimensions."""
    if len(size) != len(stride) or not 0 <= offset <= len(values):
        raise ValueError("it holds a tensor whose strides do not fit its shape")
    step = 1
    numbers = math.prod(size)
    for of_dim, n in sorted((of_dim, n) for of_dim, n in zip(stride, size, strict=True) if n != 1):
        if of_dim != step and numbers:
            raise ValueError("it holds a tensor whose numbers overlap or lie apart")
        step *= n
    if offset + numbers > len(values):
        raise ValueError(f"it holds a tensor of shape {size}, and {len(values) - offset} numbers for it")
    return values.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


def storage_of(content: bytes) -> Tensor:
    """The numbers (n,) of a storage, from the bytes that PyTorch's storages pickle themselves to.

    The bytes are a file of `torch.save` in its form before 1.6: five pickles, then a count and the numbers.

    Raises:
        ValueError: for any other bytes.
    """
    file = io.BytesIO(content)
    if read_pickle(file, (), most=100) != MAGIC or read_pickle(file, (), most=100) != VERSION:
        raise ValueError("it holds a storage in another form than PyTorch's of version 1001")
    system = read_pickle(file, (), most=100)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("it holds a storage of a big-endian machine")
    match read_pickle(file, DTYPES, most=100), read_pickle(file, (), most=100):
        case Call(of="persistent", args=(("storage", Name(kind), str() as key, str(), int() as count, None),)), [other]:
            if key != other:
                raise ValueError("it holds a storage under two names")
        case _:
            raise ValueError("it holds a file of torch.save that is more than a storage")
    dtype = DTYPES[kind]
    numbers = content[file.tell() + 8 :]
    if int.from_bytes(content[file.tell() :][:8], "little") != count or len(numbers) != count * dtype.itemsize:
        raise ValueError(f"it holds a storage of {count} numbers in {len(numbers)} bytes")
    if dtype == torch.bool and len(numbers.translate(None, b"\0\1")):
        raise ValueError("it holds truth values other than 0 and 1")
    return torch.frombuffer(bytearray(numbers), dtype=dtype) if count else torch.empty(0, dtype=dtype)
