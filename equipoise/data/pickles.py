"""Untrusted pickles, read without calling anything."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["ArraysOnly", "Described"]


class Described:
    """A stand-in for a NumPy array or dtype while a pickle is read: its arguments and state."""

    def __init__(self, *given: object):
        self.given = given

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def bytes(self) -> NDArray[np.uint8]:
        """The array. Raises ValueError unless it holds bytes."""
        _, shape, dtype, fortran, content = self.state
        if dtype.given[0] != "u1":
            raise ValueError(f"its images are {dtype.given[0]} and not bytes")
        values = np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, np.uint8)
        return values.reshape(shape, order="F" if fortran else "C")


class ArraysOnly(pickle._Unpickler):
    """Reader of pickles with NumPy arrays and Python's own types. It calls nothing else, whoever made the file.

    It extends the Python implementation, whose memo grows with the number of values, not with the largest index. Keys
    must be text: hashing nested tuples that share their parts takes time exponential in their depth.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "dtype"), ("numpy", "ndarray")):
            return Described
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return Described
        raise pickle.UnpicklingError(f"it would call {module}.{name}")

    def set_items(self: Any) -> None:
        items = self.pop_mark()
        self.set_pairs(items[::2], items[1::2])

    def set_item(self: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_pairs([key], [value])

    def set_pairs(self: Any, keys: list[Any], values: list[Any]) -> None:
        if not all(isinstance(key, str | bytes) for key in keys):
            raise pickle.UnpicklingError("its keys are not text")
        self.stack[-1].update(zip(keys, values, strict=True))

    dispatch[pickle.SETITEM[0]] = set_item
    dispatch[pickle.SETITEMS[0]] = set_items
    for opcode in (pickle.DICT, pickle.ADDITEMS, pickle.FROZENSET):  # these hash too, and CIFAR-10 has none
        del dispatch[opcode[0]]
