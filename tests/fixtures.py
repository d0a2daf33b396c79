"""Numbers and files made by published implementations, which the tests compare with."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

__all__ = ["fixture", "numbers"]

COPIED = Path(__file__).parent / "data"
"""The small ones, under the same relative paths; these are always there."""
ALL = Path(os.environ.get("EQUIPOISE_FIXTURES", Path(__file__).parents[2] / "shared/fixtures"))


def fixture(name: str) -> Path:
    """The file or folder `name`, such as "zoo/ada.npz". Skips the test if this checkout has only the small ones."""
    for folder in (COPIED, ALL):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"no {name} in {ALL}: set EQUIPOISE_FIXTURES to the folder of all fixtures")


def numbers(name: str) -> dict[str, NDArray[np.generic]]:
    """The arrays of a fixture by name."""
    with np.load(fixture(name)) as arrays:
        return dict(arrays)
