"""Arrays for metrics: conversion from tensors, and random rows."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["array", "equal", "shuffled"]

T = TypeVar("T", bound=np.generic)


def array(values: ArrayLike | Tensor) -> NDArray[np.generic]:
    """Convert a tensor, on any device, with or without gradient, or anything that numpy reads."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def shuffled(x: NDArray[T], seed: int) -> NDArray[T]:
    """The rows of an array in random order."""
    return x[np.random.default_rng(seed).permutation(len(x))]


def equal(real: NDArray[T], fake: NDArray[T], seed: int) -> tuple[NDArray[T], NDArray[T]]:
    """Equal numbers of rows: all of the smaller set, a random choice from the larger."""
    n = min(len(real), len(fake))
    first, second = (x if len(x) == n else shuffled(x, seed)[:n] for x in (real, fake))
    return first, second
