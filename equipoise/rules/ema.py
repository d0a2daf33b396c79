"""Exponential moving average of the generator, measured in images."""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import component

__all__ = ["EMA", "EMAConfig"]


class EMA(nn.Module):
    """`self.model` follows a network: w_ema <- β w_ema + (1 - β) w, β = 0.5 ** (images / half-life).

    halflife_kimg: thousands of images after which a weight's influence has halved; 0: a plain copy, not an average.
    rampup: the half-life is at most this fraction of the images seen, so early weights are forgotten; None: no limit.
        (Karras et al. 2020)

    Buffers (running means, singular vectors) are copied, not averaged.
    """

    def __init__(self, source: nn.Module, *, halflife_kimg: float = 10.0, rampup: float | None = 0.05):
        super().__init__()
        self.model = copy.deepcopy(source).eval().requires_grad_(False)
        self.halflife_kimg, self.rampup = halflife_kimg, rampup

    def forward(self, *args: Any) -> Any:
        """Call the averaged network: ``ema(z)`` is ``ema.model(z)``."""
        return self.model(*args)

    @torch.no_grad()
    def update(self, source: nn.Module, nimg: int, num_images: int) -> None:
        """Average in the weights of `source`, after `num_images` more images, `nimg` in total."""
        halflife = self.halflife_kimg * 1000
        if self.rampup is not None:
            halflife = min(halflife, nimg * self.rampup)
        beta = 0.5 ** (num_images / halflife) if halflife > 0 else 0.0
        average: list[Tensor] = list(self.model.parameters())
        current: list[Tensor] = list(source.parameters())
        if average:
            torch._foreach_lerp_(average, current, 1 - beta)
        for b_ema, b in zip(self.model.buffers(), source.buffers(), strict=True):
            b_ema.copy_(b)


@component
class EMAConfig:
    """Settings of `EMA`.

    halflife_kimg: thousands of images after which a weight's influence has halved; 0: G itself, not an average.
    rampup: the half-life is at most this fraction of the images seen; None: no limit (Karras et al. 2020).
    """

    halflife_kimg: float = Field(default=10.0, ge=0)
    rampup: float | None = Field(default=0.05, gt=0)

    def build(self, source: nn.Module) -> EMA:
        return EMA(source, halflife_kimg=self.halflife_kimg, rampup=self.rampup)
