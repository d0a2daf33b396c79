"""Differentiable augmentation of fixed strength: a few transforms on all images D sees, without a controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..types import component
from .base import Augment, Augmentation, Means
from .corruption import hole
from .resampling import pick

__all__ = ["DiffAugment"]


def color(x: Tensor) -> Tensor:
    """Brightness + U(-1/2, 1/2), saturation x U(0, 2) about the grey, contrast x U(1/2, 3/2) about the image's mean."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, device=x.device, dtype=x.dtype).unbind()
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return x + (contrast - 0.5) * (x - mean)


def translation(x: Tensor) -> Tensor:
    """By a whole number of pixels, at most an eighth of the size, along each axis. What comes in is mid-grey, 0."""
    rows, columns = (shifted(size, x) for size in x.shape[2:])
    return pick(F.pad(x, (1, 1, 1, 1)), rows.unsqueeze(2), columns.unsqueeze(1))


def shifted(size: int, x: Tensor) -> Tensor:
    """(N, size): where each pixel of a line comes from, in a line with one more pixel at either end."""
    reach = size // 8
    shift = torch.randint(-reach, reach + 1, (len(x), 1), device=x.device)
    return (torch.arange(size, device=x.device) + shift).clamp(-1, size) + 1


def cutout(x: Tensor) -> Tensor:
    """A mid-grey hole, half as high and wide as the image, centred anywhere in it."""
    center = torch.rand(len(x), 2, device=x.device)
    return x.masked_fill(hole(center, *x.shape[2:]), 0)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


@component
class DiffAugment(Augment):
    """Every transform of `policy`, on every image D sees (Zhao et al. 2020).

    policy: of "color", "translation" and "cutout", in the order they are applied. All three suit small data; for more
        data the paper takes fewer.
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
