"""WGAN-GP's 101-layer residual networks, for square images of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import Discriminator, NormKind, OneHot, labels
from equipoise.nn.init import glorot_
from equipoise.nn.norms import NormOfD, NormOfG, make_norm
from equipoise.nn.residual import convolution, residual
from equipoise.nn.sizes import multiples, start

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["BottleneckDiscriminator", "BottleneckGenerator"]


class Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, h: Tensor) -> Tensor:
        return self.factor * h


class BottleneckBlock(nn.Module):
    """shortcut(h) + 0.3 residual(h), (N, c_in, H, W) -> (N, c_out, H, W), or half or twice the size.

    residual: ReLU, 1x1 to c_in/2, ReLU, 3x3 to c_out/2 (changes the size), ReLU, 1x1 to c_out, norm.
    shortcut: h itself; for half the size a 1x1 of stride 2; for twice the size a 1x1 to 4 c_out channels, which become
        2x2 pixels.
    """

    def __init__(self, c_in: int, c_out: int, norm: NormKind, resize: Literal["none", "up", "down"] = "none"):
        super().__init__()
        inner, outer = max(c_in // 2, 1), max(c_out // 2, 1)
        self.conv1 = convolution(c_in, inner, 1, gain=2**0.5)
        self.conv2: nn.Module
        self.shortcut: nn.Module
        match resize:
            case "none":
                self.conv2 = residual(inner, outer)
                self.shortcut = nn.Identity()
            case "up":
                self.conv2 = nn.ConvTranspose2d(inner, outer, 3, stride=2, padding=1, output_padding=1)
                glorot_(self.conv2, 2**0.5)
                self.shortcut = nn.Sequential(convolution(c_in, 4 * c_out, 1), nn.PixelShuffle(2))
            case "down":
                self.conv2 = nn.Conv2d(inner, outer, 3, stride=2, padding=1)
                glorot_(self.conv2, 2**0.5)
                shortcut = nn.Conv2d(c_in, c_out, 1, stride=2)
                glorot_(shortcut)
                self.shortcut = shortcut
        self.conv3 = convolution(outer, c_out, 1, gain=2**0.5, bias=False)  # as in the authors' code, norm or not
        self.norm = make_norm(norm, c_out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(x))
        h = self.conv2(F.relu(h))
        h = self.norm(self.conv3(F.relu(h)))
        out: Tensor = self.shortcut(x) + 0.3 * h
        return out


def tower(widths: Sequence[int], counts: Sequence[int], block: Callable[..., nn.Module]) -> list[nn.Module]:
    """`counts[i]` blocks of `widths[i]` channels, and between two widths one block that changes the size."""
    layers = [block(widths[0], widths[0]) for _ in range(counts[0])]
    for (c_in, c_out), count in zip(pairwise(widths), counts[1:], strict=True):
        layers += [block(c_in, c_out, resize=True), *(block(c_out, c_out) for _ in range(count))]
    return layers


def numbers(blocks: int, maps: int) -> list[int]:
    """Number of size-keeping blocks on each map, from the largest to the smallest: one fewer on the largest."""
    return [blocks - 1, *[blocks] * (maps - 1)]


@component
class BottleneckGenerator(GeneratorConfig):
    """Linear z -> 16w at 4x4, `BottleneckBlock`s, 6 on each map and 1 between two, -> w at 64x64, 1x1 -> C, tanh(x/5).

    At 64x64 the 101-layer generator of WGAN-GP's robustness experiments (Gulrajani et al. 2017, sec. 5.2;
    `ResnetGenerator` of the authors' code). The smallest map is 4x4 to 7x7, and each map is twice the one before.
    Weights as in `ResNetGenerator`. Conditional: the class, one-hot, is appended to z (Mirza & Osindero 2014).

    width: w, the channels of the largest map. Each smaller map has twice the channels, up to 16w.
    blocks: number of size-keeping blocks on each map; one fewer on the largest.
    norm: at the end of each residual: "batch", "sync_batch" for statistics over all processes, or "none".
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 16
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=6, ge=1)
    norm: NormOfG = "batch"

    def build(self, spec: ImageSpec) -> nn.Module:
        return DeepUpNet(self, spec)


class DeepUpNet(nn.Module):
    def __init__(self, cfg: BottleneckGenerator, spec: ImageSpec):
        super().__init__()
        begin = start(spec, type(cfg).__name__)
        self.onehot = OneHot(spec.num_classes) if spec.num_classes else None
        widths = multiples(cfg.width, begin.doublings + 1, "doubling", 16)[::-1]
        linear = nn.Linear(cfg.z_dim + spec.num_classes, widths[0] * begin.positions)
        glorot_(linear)

        def block(c_in: int, c_out: int, *, resize: bool = False) -> nn.Module:
            return BottleneckBlock(c_in, c_out, cfg.norm, "up" if resize else "none")

        self.layers = nn.Sequential(
            linear,
            nn.Unflatten(1, (widths[0], *begin.map)),
            *tower(widths, numbers(cfg.blocks, begin.doublings + 1)[::-1], block),
            convolution(cfg.width, spec.channels, 1),
            Scale(1 / 5),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.onehot is not None:
            z = torch.cat([z, self.onehot(labels(y))], dim=1)
        x: Tensor = self.layers(z)
        return x


@component
class BottleneckDiscriminator(DiscriminatorConfig):
    """1x1 C -> w at 64x64, `BottleneckBlock`s, 6 on each map and 1 between two, -> 16w at 4x4, times 1/5, head.

    At 64x64 the 101-layer critic of WGAN-GP's robustness experiments (Gulrajani et al. 2017, sec. 5.2;
    `ResnetDiscriminator` of the authors' code), the mirror image of `BottleneckGenerator`. The head reads all values of
    the last map.

    width, blocks: as in `BottleneckGenerator`.
    norm: at the end of each residual: "layer" for a gradient penalty, "batch" for other losses, or "none".
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 16
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=6, ge=1)
    norm: NormOfD = "layer"

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        begin = start(spec, type(self).__name__)
        widths = multiples(self.width, begin.doublings + 1, "doubling", 16)

        def block(c_in: int, c_out: int, *, resize: bool = False) -> nn.Module:
            return BottleneckBlock(c_in, c_out, self.norm, "down" if resize else "none")

        body = nn.Sequential(
            convolution(spec.channels, self.width, 1),
            *tower(widths, numbers(self.blocks, begin.doublings + 1), block),
            Scale(1 / 5),
            nn.Flatten(),
        )
        return Discriminator(body, head(widths[-1] * begin.positions, begin.positions))


PUBLISHED = {
    "wgan_gp_101_64": Pair("Gulrajani et al. 2017", ImageSpec(64), BottleneckGenerator(), BottleneckDiscriminator())
}
