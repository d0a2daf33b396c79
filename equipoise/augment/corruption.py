"""Random corruption: noise and a hole (Karras et al. 2020, app. B)."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws

__all__ = ["corrupt", "hole"]


def corrupt(x: Tensor, draws: Draws) -> Tensor:
    """Corrupt images (N, C, H, W) in [-1, 1] -> same shape, not clamped.

    Noise has standard deviation |N(0, 0.1²)|. The hole is mid-grey, half as high and wide as the image, and centred
    anywhere in it.
    """
    std = draws.fire(draws.normal(0.1).abs(), 0).view(-1, 1, 1, 1)
    x = torch.where(std > 0, x + std * torch.randn_like(x), x)
    away = draws.fire(draws.uniform(0, 1, 2), 2)  # a hole centred at twice the size touches nothing
    return x.masked_fill(hole(away, *x.shape[2:]), 0)


def hole(center: Tensor, height: int, width: int) -> Tensor:
    """Mask of holes: centres (N, 2) as (row, column) fractions of the size -> (N, 1, H, W), true inside.

    A hole reaches a quarter of the size from its centre.
    """
    near = [
        ((torch.arange(n, device=center.device) + 0.5) / n - c.unsqueeze(1)).abs() < 0.25
        for n, c in zip((height, width), center.unbind(1), strict=True)
    ]
    return (near[0].unsqueeze(2) & near[1].unsqueeze(1)).unsqueeze(1)
