"""Images under affine maps: `move` for maps of pixels to pixels, `resample` for all others."""

from __future__ import annotations

import torch
from torch import Tensor

from .bilinear import bilinear
from .wavelets import DELAY, PHASE, downsampling, reflect, upsampling

__all__ = ["move", "pick", "resample"]


def move(x: Tensor, matrix: Tensor) -> Tensor:
    """Images x (N, C, H, W) under maps (N, 3, 3), as in `affine`, of pixels to pixels. No value changes."""
    rows, columns = sources(x, matrix, *(indices(size, x) for size in x.shape[2:]))
    return pick(x, rows.round().long(), columns.round().long())


def resample(x: Tensor, matrix: Tensor) -> Tensor:
    """Images x (N, C, H, W) under any maps (N, 3, 3), as in `affine`, band-limited (Karras et al. 2020, app. B).

    Upsampled twice with a wavelet's low-pass filter, sampled bilinearly, downsampled with the same filter. So the
    identity gives x, an enlargement is smooth and a reduction does not alias.
    """
    height, width = x.shape[2:]
    down = downsampling(height, x), downsampling(width, x)
    rows, columns = sources(x, matrix, *((indices(d.shape[1], x) - DELAY) / 2 for d in down))
    fine = upsampling(height, x) @ x @ upsampling(width, x).mT  # (N, C, 2 H, 2 W)
    grid = torch.stack([(2 * at + PHASE) * (2 / (2 * n - 1)) - 1 for at, n in ((columns, width), (rows, height))], -1)
    sampled = bilinear(fine, grid)  # (N, C, 2 H + 10, 2 W + 10)
    return down[0] @ sampled @ down[1].mT


def sources(x: Tensor, matrix: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Where in x lies what the result shows at rows (R,) and columns (S,) -> rows and columns, (N, R, S) each.

    Beyond the border of x lies its mirror image.
    """
    height, width = x.shape[2:]
    right, down = columns - (width - 1) / 2, rows.view(-1, 1) - (height - 1) / 2
    to_x, to_y = ((m[:, 0] * right + m[:, 1] * down + m[:, 2]) for m in matrix.view(-1, 3, 3, 1, 1).unbind(1)[:2])
    return reflect(to_y + (height - 1) / 2, height), reflect(to_x + (width - 1) / 2, width)


def pick(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels of x (N, C, H, W) at rows and columns, int64, which broadcast to (N, R, S) -> (N, C, R, S)."""
    index = rows * x.shape[3] + columns
    picked = x.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1))
    return picked.view(*x.shape[:2], *index.shape[1:])


def indices(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, device=like.device, dtype=like.dtype)
