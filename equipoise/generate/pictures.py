"""Images as one picture: a grid, and its PNG file."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["grid", "png"]


def grid(pixels: NDArray[np.uint8], columns: int = 10) -> NDArray[np.uint8]:
    """Images (N, H, W, C) -> one picture (rows·H, columns·W, C), row by row; missing places are black."""
    n, h, w, c = pixels.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    full = np.zeros((rows * columns, h, w, c), np.uint8)
    full[:n] = pixels
    return full.reshape(rows, columns, h, w, c).swapaxes(1, 2).reshape(rows * h, columns * w, c)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode one picture (H, W, C) as a PNG file."""
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()
