"""Random image-space filtering: amplify or damp octaves of the spectrum (Karras et al. 2020, app. B)."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import Draws
from .wavelets import bands

__all__ = ["band_filter"]

POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Share of each band of `wavelets.bands` in the power of a natural image, for a spectrum that falls as 1/frequency."""


def band_filter(x: Tensor, draws: Draws) -> Tensor:
    """Multiply the bands of rows and columns of images (N, C, H, W) by `band_gains`, with mirrored borders."""
    gains = band_gains(draws)
    over_rows, over_columns = (torch.einsum("nb,bij->nij", gains, bands(size, x)).unsqueeze(1) for size in x.shape[2:])
    neutral = (gains == 1).all(1).view(-1, 1, 1, 1)
    return torch.where(neutral, x, over_rows @ x @ over_columns.mT)


def band_gains(draws: Draws) -> Tensor:
    """Gains of the four bands, lowest first, (N, 4).

    Each band in turn is amplified by 2^N(0, 1), and all four are scaled to keep the power.
    """
    gains = torch.ones(draws.n, len(POWER), device=draws.device, dtype=draws.dtype)
    for i, share in enumerate(POWER):
        factor = draws.lognormal(1)
        amplified = torch.ones_like(gains)
        amplified[:, i] = factor
        power = share * factor.square() + (1 - share)
        gains = gains * draws.fire(amplified / power.sqrt().unsqueeze(1), 1)
    return gains
