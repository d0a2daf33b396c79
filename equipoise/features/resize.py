"""Resize images to a network's training size. The filter is part of a metric's definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["bicubic", "tf1_bilinear"]


def tf1_bilinear(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of TensorFlow 1 (align_corners=False), on which the FID was defined.

    x: (N, C, H, W), bytes or floats -> (N, C, size, size) float32.

    Output pixel i reads position i H / size, where later resizes read (i + ½) H / size - ½. So the image is shifted
    towards the first row and column, and the last one is repeated. Shrinking skips pixels (no antialiasing). Values are
    0 to 255, in float32; columns are interpolated before rows.
    """
    return along(along(x.to(torch.float32), size, 3), size, 2)


def along(x: Tensor, size: int, dim: int) -> Tensor:
    """Linear interpolation in one dimension, a + (b - a) t."""
    length = x.shape[dim]
    scale = torch.tensor(length, dtype=torch.float32) / size
    place = torch.arange(size, dtype=torch.float32) * scale
    low = place.long()
    t = (place - low).to(x.device)
    a = x.index_select(dim, low.to(x.device))
    b = x.index_select(dim, (low + 1).clamp(max=length - 1).to(x.device))
    return a + (b - a) * (t if dim == 3 else t[:, None])


def bicubic(x: Tensor, size: int) -> Tensor:
    """Bicubic resize with antialiasing, like Pillow's but without rounding to bytes, clamped to [0, 255].

    x: (N, C, H, W), bytes or floats in [0, 255] -> (N, C, size, size) float32. Images of that size stay unchanged.
    """
    x = x.to(torch.float32)
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
