"""Differentiable augmentation of fixed strength: a few transforms on all images D sees, without a controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .base import Augment, Augmentation, Means
from .resampling import pick

__all__ = ["DiffAugment"]


def color(x: Tensor) -> Tensor:
    """Brightness + U(-1/2, 1/2), saturation × U(0, 2) about grey, contrast × U(1/2, 3/2) about the image's mean."""
    return recolored(x, *torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype).unbind())


def recolored(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """`color` with draws (N, 1, 1, 1) in [0, 1)."""
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return x + (contrast - 0.5) * (x - mean)


def translation(x: Tensor) -> Tensor:
    """Translate by a whole number of pixels along each axis, up to 1/8 of the size. New pixels are mid-grey, 0."""
    reaches = (int(size / 8 + 0.5) for size in x.shape[2:])
    return translated(x, *(integers(-reach, reach, x) for reach in reaches))


def translated(x: Tensor, row_shift: Tensor, column_shift: Tensor) -> Tensor:
    """Pixel (r, c) of the result is pixel (r + row_shift, c + column_shift) of x, 0 outside. Shifts: (N, 1) int64."""
    rows, columns = (
        (torch.arange(size, device=x.device) + shift).clamp(-1, size) + 1
        for size, shift in zip(x.shape[2:], (row_shift, column_shift), strict=True)
    )
    return pick(F.pad(x, (1, 1, 1, 1)), rows.unsqueeze(2), columns.unsqueeze(1))


def cutout(x: Tensor) -> Tensor:
    """A mid-grey hole, half as high and wide as the image, rounded to pixels, centred anywhere in it."""
    sides = tuple(int(size / 2 + 0.5) for size in x.shape[2:])
    row, column = (integers(0, size - side % 2, x) for size, side in zip(x.shape[2:], sides, strict=True))
    return cut_out(x, row, column, *sides)


def cut_out(x: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Zero `height` rows from row - height // 2 on, and `width` columns likewise. row, column: (N, 1) int64."""
    rows, columns = covered(row, height, x.shape[2]), covered(column, width, x.shape[3])
    return x.masked_fill((rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1), 0)


def covered(centre: Tensor, side: int, size: int) -> Tensor:
    """Mask of a line of `size` pixels: true in the hole of `side` pixels about `centre` (N, 1) -> (N, size)."""
    inside = torch.arange(size, device=centre.device) - (centre - side // 2)
    return (inside >= 0) & (inside < side)


def integers(first: int, last: int, x: Tensor) -> Tensor:
    """Uniform random integers from `first` to `last`, (N, 1)."""
    return torch.randint(first, last + 1, (len(x), 1), device=x.device)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


@component
class DiffAugment(Augment):
    """Every transform of `policy`, on every image D sees (Zhao et al. 2020).

    policy: transforms from "color", "translation" and "cutout", in the order of application. All three suit small data;
        for more data the paper takes fewer.
    """

    policy: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        default=("color", "translation", "cutout"), min_length=1
    )

    def build(self) -> DifferentiableAugmentation:
        return DifferentiableAugmentation(self)


class DifferentiableAugmentation(Augmentation):
    """x (N, C, H, W) in [-1, 1] -> same shape."""

    def __init__(self, settings: DiffAugment):
        super().__init__()
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ValueError(f"DiffAugment augments images (N, C, H, W), got {tuple(x.shape)}")
        for name in self.settings.policy:
            x = TRANSFORMS[name](x)
        return x

    def at(self, nimg: int) -> None:
        pass

    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        return {}
