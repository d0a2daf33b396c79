"""Warnings about data that can be used all the same: files left out, pictures enlarged, too few of them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from equipoise.compute.distributed import rank

__all__ = ["DataWarning", "remark", "remark_if_few"]

FEW = 100
PACKAGE = str(Path(__file__).parents[1])


class DataWarning(UserWarning):
    """A fact about a data set that its owner may want to change."""


def remark(text: str) -> None:
    """Warn of `text` on rank 0, at the line outside of the package that opened the data."""
    if rank() == 0:
        level, frame = 2, sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
            level, frame = level + 1, frame.f_back
        warnings.warn(text, DataWarning, stacklevel=level)


def remark_if_few(count: int, where: str) -> None:
    """Warn of fewer than `FEW` pictures."""
    if count == 1:
        remark(f"{where} holds a single picture: G can only learn to copy it. Add more, 1,000 or better 10,000")
    elif count < FEW:
        remark(
            f"{where} holds {count} pictures, fewer than {FEW}: D memorises them. Add "
            "more, 1,000 or better 10,000, or train with augment=ADA"
        )
