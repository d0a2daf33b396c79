"""Apply affine maps to images: `move` for maps of pixels to pixels, `resample` for all others."""

from __future__ import annotations

import torch
from torch import Tensor

from .bilinear import bilinear
from .wavelets import DELAY, FIRST, downsampling, reflect, upsampling

__all__ = ["move", "pick", "resample"]


def move(x: Tensor, matrix: Tensor) -> Tensor:
    """Apply maps (N, 3, 3), as in `affine`, of pixels to pixels to images x (N, C, H, W). Pixels keep their values."""
    height, width = x.shape[2:]
    rows, columns = sources(x, matrix, *(indices(size, x) for size in (height, width)))
    return pick(x, reflect(rows.round().long(), height), reflect(columns.round().long(), width))


def resample(x: Tensor, matrix: Tensor, *, delay: float = DELAY) -> Tensor:
    """Apply any maps (N, 3, 3), as in `affine`, to images x (N, C, H, W), band-limited (Karras et al. 2020, app. B).

    Images are mirrored at the border, upsampled by 2 with a wavelet's low-pass filter, sampled bilinearly, and
    downsampled with the same filter. So the identity returns x, a shift by whole pixels keeps their values, an
    enlargement is smooth, and a reduction does not alias.

    delay: delay of the filter in samples of the upsampled image. The published pipeline takes 5, so its images rotate
        about a point 0.05 pixels off their centre.
    """
    height, width = x.shape[2:]
    down = downsampling(height, x), downsampling(width, x)
    fine = upsampling(height, x) @ x @ upsampling(width, x).mT  # (N, C, 4 H - 3, 4 W - 3)
    rows, columns = sources(x, matrix, *((indices(d.shape[1], x) - delay) / 2 for d in down))
    phase = (delay - FIRST) / 2
    grid = torch.stack([in_period(columns + phase, width), in_period(rows + phase, height)], -1)
    sampled = bilinear(fine, grid)  # (N, C, 2 H + 10, 2 W + 10)
    return down[0] @ sampled @ down[1].mT


def in_period(at: Tensor, size: int) -> Tensor:
    """Map positions in pixels to [-1, 1]: the first sample of `upsampling`, to the last, 2 size - 2 pixels later."""
    return at % (2 * size - 2) * (1 / (size - 1)) - 1


def sources(x: Tensor, matrix: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in x of the result's pixels at rows (R,) and columns (S,) -> rows and columns, (N, R, S) each."""
    height, width = x.shape[2:]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    right, down = columns - middle_x, rows.view(-1, 1) - middle_y
    to_x, to_y = matrix.view(-1, 3, 3, 1, 1).unbind(1)[:2]  # (N, 3, 1, 1) each; brackets: one sum of (N, R, S) each
    from_x = to_x[:, 0] * right + (to_x[:, 1] * down + (to_x[:, 2] + middle_x))
    from_y = to_y[:, 0] * right + (to_y[:, 1] * down + (to_y[:, 2] + middle_y))
    return from_y, from_x


def pick(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels of x (N, C, H, W) at int64 rows and columns that broadcast to (N, R, S) -> (N, C, R, S)."""
    index = rows * x.shape[3] + columns
    picked = x.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1))
    return picked.view(*x.shape[:2], *index.shape[1:])


def indices(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, device=like.device, dtype=like.dtype)
