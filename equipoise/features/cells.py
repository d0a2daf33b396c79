"""Means and standard deviations of colours as features: cheap, without weights, for images of any kind."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from .base import FeatureNet

__all__ = ["SIDES", "CellFeatures"]

SIDES = {"colours": 1, "cells": 4}
"""Cells along a side of the image, by name."""


class CellFeatures(FeatureNet):
    """The networks "colours" and "cells": mean and standard deviation of each channel, in [-1, 1], in each cell.

    "colours" has one cell, the image: 6 features of a colour image. "cells" has 4x4: 96 features. They see colours and
    a coarse layout, not shapes. A measurement costs little more than drawing the images, and finds colours that drift
    and images that are alike. Sides that 4 does not divide have cells that overlap, as in `adaptive_avg_pool2d`.
    """

    def __init__(self, name: str, *, device: torch.device | str = "cpu", batch_size: int = 500):
        self.side = SIDES[name]
        definition = f"mean and standard deviation in {self.side}x{self.side} cells"
        super().__init__(name, hashlib.sha256(definition.encode()).hexdigest(), nn.Identity(), device, batch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        x = x.float() / 127.5 - 1
        mean = adaptive_avg_pool2d(x, self.side)
        variance = adaptive_avg_pool2d(x.square(), self.side) - mean.square()
        return torch.cat([mean, variance.clamp(min=0).sqrt()], dim=1).flatten(1), None
