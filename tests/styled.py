"""A generator with styles, small enough to be differentiated number by number."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from equipoise.core.types import ImageSpec, component
from equipoise.models import GeneratorConfig

__all__ = ["Styled", "ToyStyles"]


class ToyStyles(nn.Module):
    """z -> ws (N, 3, 4) -> images, smooth and not linear in ws. Each style is weighted anew by a draw in training."""

    def __init__(self, spec: ImageSpec, z_dim: int, mixing: bool = False):
        super().__init__()
        self.spec, self.mixing, self.num_ws = spec, mixing, 3
        self.mapping = nn.Linear(z_dim, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 6) for _ in range(3)])
        self.last = nn.Linear(6, spec.channels * spec.resolution**2)
        self.asked: list[tuple[torch.Tensor, str]] = []

    def styles(self, z, y=None):
        shift = 0 if y is None else 0.1 * y[:, None]
        ws = torch.tanh(self.mapping(z) + shift)[:, None].repeat(1, self.num_ws, 1)
        return ws * (1 + 0.1 * torch.rand(self.num_ws, 1)) if self.mixing else ws

    def synthesis(self, ws, noise_mode="const"):
        self.asked.append((ws.detach(), noise_mode))
        h = torch.ones_like(ws[:, 0, :1]).repeat(1, 6)
        for w, layer in zip(ws.unbind(1), self.layers, strict=True):
            h = torch.sin(h + layer(w))
        x = torch.tanh(self.last(h))
        return x.view(len(ws), self.spec.channels, self.spec.resolution, self.spec.resolution)

    def forward(self, z, y=None):
        return self.synthesis(self.styles(z, y), noise_mode="random")


@component
class Styled(GeneratorConfig):
    """Settings of `ToyStyles`."""

    styled: ClassVar[bool] = True
    mixing: bool = False

    def build(self, spec: ImageSpec) -> nn.Module:
        return ToyStyles(spec, self.z_dim, self.mixing)
