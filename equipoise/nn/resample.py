"""Images shrunk, enlarged, and reduced in detail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["detail", "enlarge", "shrink"]


def shrink(x: Tensor, halvings: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H / 2^halvings, W / 2^halvings), means over squares."""
    return F.avg_pool2d(x, 2**halvings) if halvings else x


def enlarge(x: Tensor, doublings: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H · 2^doublings, W · 2^doublings), each pixel a square."""
    return F.interpolate(x, scale_factor=2**doublings, mode="nearest") if doublings else x


def detail(x: Tensor, lod: float) -> Tensor:
    """Images (N, C, H, W) at a level of detail, in their full size.

    A fractional lod mixes the two neighbouring levels, as G mixes its own images while a layer fades in.
    """
    whole, fade = int(lod), lod % 1
    small = shrink(x, whole)
    if fade:
        small = torch.lerp(small, enlarge(shrink(small, 1), 1), fade)
    return enlarge(small, whole)
