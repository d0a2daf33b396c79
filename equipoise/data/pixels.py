"""Conversion between bytes on disk and floats in networks. No other module converts."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dequantise", "to_float", "to_uint8"]


def to_float(x: Tensor) -> Tensor:
    """Bytes to floats, x / 127.5 - 1: uint8 in [0, 255] -> float32 in [-1, 1], any shape, on x's device."""
    return x.to(torch.float32).div(127.5).sub_(1)


def dequantise(x: Tensor, width: float, generator: torch.Generator) -> Tensor:
    """Add u ~ U[0, width] to each value, so that floats fill the gaps between bytes (Theis et al. 2016, sec. 3.1).

    width: in units of images in [-1, 1], where neighbouring bytes are 2 / 255 apart; 0 adds no noise, draws no numbers.
    generator: on x's device.
    """
    if width == 0:
        return x
    return x + width * torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def to_uint8(x: Tensor) -> Tensor:
    """Floats to bytes, round(127.5 (x + 1)) clamped to [0, 255]: any float -> uint8. The inverse of `to_float`.

    >>> bool((to_uint8(to_float(torch.arange(256, dtype=torch.uint8))) == torch.arange(256)).all())
    True
    """
    return x.to(torch.float32).add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
