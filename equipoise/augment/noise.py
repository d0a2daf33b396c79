"""Instance noise: Gaussian noise on everything D sees, annealed during training."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.core.schedules import Linear, Schedule, at
from equipoise.core.types import component

from .base import Augment, Augmentation, Means

__all__ = ["InstanceNoise"]


@component
class InstanceNoise(Augment):
    """x + N(0, std²), on real and generated images (Sønderby et al. 2017, sec. 3; Arjovsky & Bottou 2017, sec. 3).

    Noise gives both distributions the same support. So D cannot be perfect, and its gradients stay informative.

    std: in units of images in [-1, 1]; a schedule that ends at 0 anneals it.
    """

    std: Schedule = Linear(start=0.1, end=0.0, kimg=500.0)

    def build(self) -> Noise:
        return Noise(self)


class Noise(Augmentation):
    """x of any shape -> x + noise. `at` sets its strength, initially the strength for nimg = 0."""

    def __init__(self, settings: InstanceNoise):
        super().__init__()
        self.settings = settings
        self.at(0)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.std == 0 else x + self.std * torch.randn_like(x)

    def at(self, nimg: int) -> None:
        self.std = at(self.settings.std, nimg)

    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        return {}
