"""Random image-space filtering: octaves of the spectrum amplified or damped (Karras et al. 2020, app. B)."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .wavelets import bands

__all__ = ["band_filter"]

POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Share of each band of `wavelets.bands` in the power of a natural image, whose spectrum falls as 1/frequency."""


def band_filter(x: Tensor, draws: Draws) -> Tensor:
    """Images (N, C, H, W) with the bands of their rows and columns times `band_gains`; mirrored at the border."""
    gains = band_gains(draws)
    over_rows, over_columns = (torch.einsum("nb,bij->nij", gains, bands(size, x)).unsqueeze(1) for size in x.shape[2:])
    neutral = (gains == 1).all(1).view(-1, 1, 1, 1)
    return torch.where(neutral, x, over_rows @ x @ over_columns.mT)


def band_gains(draws: Draws) -> Tensor:
    """(N, 4), lowest band first: each band is a time amplified by 2^N(0, 1), and all four scaled to keep the power."""
    gains = torch.ones(draws.n, len(POWER), device=draws.device, dtype=draws.dtype)
    for i, share in enumerate(POWER):
        factor = draws.lognormal(1)
        amplified = torch.ones_like(gains)
        amplified[:, i] = factor
        power = share * factor.square() + (1 - share)
        gains = gains * draws.fire(amplified / power.sqrt().unsqueeze(1), 1)
    return gains
