"""Squared distances between all samples of two sets, one block in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocks"]

Array = NDArray[np.float64]

BLOCK = 2**22
"""Distances in memory at a time: 32 MB."""


def blocks(x: Array, y: Array) -> Iterator[tuple[slice, Array]]:
    """Squared distances from blocks of rows of x (N, F) to all of y (M, F): yields the rows and their distances (n, M).

    ‖x‖² - 2 <x, y> + ‖y‖² as one product of (-2x, ‖x‖², 1) and (y, 1, ‖y‖²), about the mean of y, where it loses the
    fewest digits. Rounding may make a distance negative.
    """
    middle = y.mean(axis=0)
    x, y = x - middle, y - middle
    left = np.column_stack([-2 * x, np.square(x).sum(axis=1), np.ones(len(x))])
    right = np.column_stack([y, np.ones(len(y)), np.square(y).sum(axis=1)]).T
    size = max(1, BLOCK // len(y))
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        yield rows, left[rows] @ right
