"""A blur that fades: D first sees coarse shapes alone, on real and on generated images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from equipoise.compute.precision import without_autocast
from equipoise.core.types import component

from .base import Augment, Augmentation, Means

__all__ = ["FadingBlur"]


@component
class FadingBlur(Augment):
    """x * w, w_i ~ 2^(-(i/s)²) along rows and columns, |i| <= 3 s; s falls linearly from `sigma` to 0 in `kimg`.

    StyleGAN3-R trains with it, kimg = 200 batch / 32 (Karras et al. 2021, app. G). It comes before other augmentations,
    ``Chain((FadingBlur(), ADA()))``. The base is 2, not e. Beyond the borders the image is 0. Below s = 1/3 images stay
    as they are. D's gradients run through the blur, in R1 too.

    sigma: s at the start, in pixels.
    kimg: thousands of images after which s is 0.
    """

    sigma: float = Field(default=10.0, ge=0)
    kimg: float = Field(default=200.0, gt=0)

    def build(self) -> Blur:
        return Blur(self)


class Blur(Augmentation):
    """x (N, C, H, W) -> same shape, in float32 or more. `at` sets its width, initially the width for nimg = 0."""

    def __init__(self, settings: FadingBlur):
        super().__init__()
        self.settings = settings
        self.at(0)

    def forward(self, x: Tensor) -> Tensor:
        radius = math.floor(3 * self.sigma)
        if radius == 0:
            return x
        with without_autocast(x):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            i = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
            weights = torch.exp2(-((i / self.sigma) ** 2))
            weights = (weights / weights.sum()).to(x)
            rows = F.conv2d(x.flatten(0, 1).unsqueeze(1), weights.view(1, 1, 1, -1), padding=(0, radius))
            return F.conv2d(rows, weights.view(1, 1, -1, 1), padding=(radius, 0)).view_as(x)

    def at(self, nimg: int) -> None:
        self.sigma = self.settings.sigma * max(1 - nimg / (self.settings.kimg * 1000), 0.0)

    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        return {}
