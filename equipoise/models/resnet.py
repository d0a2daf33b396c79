"""Residual networks of SN-GAN, its projection discriminator, and WGAN-GP, for square images of many sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..heads import Discriminator, HeadFactory
from ..types import NONE_IS_A_WORD, ImageSpec, component
from .base import DiscriminatorConfig, GeneratorConfig
from .dcgan import BATCH_NORMS, make_norm, sizes
from .layers import require_labels
from .norms import ConditionalBatchNorm, NormKind

__all__ = ["ResNetCritic", "ResNetDiscriminator", "ResNetGenerator"]

Channels = Literal["doubling", "constant"]

HALVINGS = {48: (4, 1), 64: (5, 0), 128: (5, 1)}
"""SN-GAN's blocks of D that halve the map, and those after them that keep its size, at the sizes of the papers."""


# ---- layers ----------------------------------------------------------------------------------------------


def convolution(c_in: int, c_out: int, kernel: int = 3, *, gain: float = 1.0, bias: bool = True) -> nn.Conv2d:
    """One that keeps the size of the map: weights uniform with variance 2 gain² / (fan_in + fan_out), biases 0."""
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
    glorot_(layer, gain)
    return layer


def glorot_(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, gain: float = 1.0) -> None:
    """Set a layer to its initial weights, in place (Glorot & Bengio 2010, eq. 16)."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def residual(c_in: int, c_out: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution between two ReLUs, which halve the variance: so twice that of the others."""
    return convolution(c_in, c_out, gain=math.sqrt(2), bias=bias)


def up(h: Tensor) -> Tensor:
    """Each pixel four times: (N, F, H, W) -> (N, F, 2H, 2W)."""
    return F.interpolate(h, scale_factor=2, mode="nearest")


def normed(norm: nn.Module, h: Tensor, y: Tensor | None) -> Tensor:
    """`norm` of h, which reads the class if it is conditional."""
    out: Tensor = norm(h, y) if isinstance(norm, ConditionalBatchNorm) else norm(h)
    return out


class GlobalPool(nn.Module):
    """Sum, or mean, over all positions: h (N, F, H, W) -> (N, F)."""

    def __init__(self, kind: Literal["sum", "mean"]):
        super().__init__()
        self.kind = kind

    def forward(self, h: Tensor) -> Tensor:
        return h.sum((2, 3)) if self.kind == "sum" else h.mean((2, 3))


# ---- blocks ----------------------------------------------------------------------------------------------


class UpBlock(nn.Module):
    """shortcut(h) + residual(h), (N, c_in, H, W) -> (N, c_out, 2H, 2W).

    residual: norm, ReLU, up, 3x3, norm, ReLU, 3x3.  shortcut: up, 1x1.

    norm: features -> layer; the two of a block may be conditional.
    """

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), residual(c_in, c_out, bias=False)  # norm2 has its own
        self.norm2, self.conv2 = norm(c_out), residual(c_out, c_out)
        self.shortcut = convolution(c_in, c_out, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = self.conv1(up(F.relu(normed(self.norm1, x, y))))
        h = self.conv2(F.relu(normed(self.norm2, h, y)))
        out: Tensor = h + up(self.shortcut(x))  # 1x1 before up is the same, at a quarter of the work
        return out


class DownBlock(nn.Module):
    """shortcut(h) + residual(h), (N, c_in, H, W) -> (N, c_out, H/2, W/2), or of the same size.

    residual: norm, ReLU, 3x3 to c_in, norm, ReLU, 3x3 to c_out, mean of 2x2.  shortcut: 1x1, mean of 2x2; h itself
    where nothing changes its form.
    """

    def __init__(self, c_in: int, c_out: int, *, halve: bool = True, norm: NormKind = "none"):
        super().__init__()
        self.norm1, self.conv1 = make_norm(norm, c_in), residual(c_in, c_in, bias=norm == "none")
        self.norm2, self.conv2 = make_norm(norm, c_in), residual(c_in, c_out)
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()
        self.shortcut = convolution(c_in, c_out, 1) if halve or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        out: Tensor = self.pool(h) + self.shortcut(self.pool(x))  # the mean before 1x1 is the same
        return out


class FirstDownBlock(nn.Module):
    """`DownBlock` of an image, (N, C, H, W) -> (N, c_out, H/2, W/2): no norm and no ReLU before its first layer."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.conv1, self.conv2 = residual(c_in, c_out), residual(c_out, c_out)
        self.shortcut = convolution(c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        out: Tensor = h + self.shortcut(F.avg_pool2d(x, 2))
        return out


# ---- generator -------------------------------------------------------------------------------------------


@component
class ResNetGenerator(GeneratorConfig):
    """Linear z -> 16w at 4x4, `UpBlock`s -> 8w -> 4w -> 2w -> w at 64x64, batch norm, ReLU, 3x3 -> C, tanh.

    The generators of SN-GAN (Miyato et al. 2018, app. B.4), of the projection discriminator (Miyato & Koyama 2018,
    fig. 14) and of WGAN-GP (Gulrajani et al. 2017, app. F and the authors' code). The smallest map is 4x4 to 7x7 and
    each block doubles it: resolutions 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, ... Weights after Glorot &
    Bengio 2010, with twice the variance inside the blocks.

        SN-GAN 32                ResNetGenerator(width=256, channels="constant")
        SN-GAN 48, 64, 128       ResNetGenerator()
        WGAN-GP 32               ResNetGenerator(width=128, channels="constant")
        WGAN-GP 64               ResNetGenerator(most=8)

    width: w, the channels of the last block.
    channels: "doubling": towards the smallest map each has twice the channels, up to `most` times w. "constant": w.
    conditional: reads the class by `ConditionalBatchNorm` in the blocks; the last batch norm is not conditional. Its
        gains and biases start equal for all classes.
    norm: "batch", or "sync_batch" for the statistics of all processes.
    """

    width: int = Field(default=64, ge=1)
    channels: Channels = "doubling"
    most: int = Field(default=16, ge=1)
    norm: Literal["batch", "sync_batch"] = "batch"

    def build(self, spec: ImageSpec) -> nn.Module:
        if self.conditional:
            require_labels(type(self).__name__, spec.num_classes)
        return UpNet(self, spec)


class UpNet(nn.Module):
    def __init__(self, cfg: ResNetGenerator, spec: ImageSpec):
        super().__init__()
        base, doublings = sizes(spec, type(cfg).__name__)
        batch_norm = BATCH_NORMS[cfg.norm]
        widths = multiples(cfg.width, doublings + 1, cfg.channels, cfg.most)[::-1]

        def norm(features: int) -> nn.Module:
            if cfg.conditional:
                return ConditionalBatchNorm(features, spec.num_classes, batch_norm=batch_norm)
            return batch_norm(features)

        self.linear = nn.Linear(cfg.z_dim, widths[0] * base**2)
        glorot_(self.linear)
        self.unflatten = nn.Unflatten(1, (widths[0], base, base))
        self.blocks = nn.ModuleList(UpBlock(c_in, c_out, norm) for c_in, c_out in pairwise(widths))
        self.norm = batch_norm(cfg.width)
        self.conv = convolution(cfg.width, spec.channels)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.unflatten(self.linear(z))  # (N, 16w, 4, 4)
        for block in self.blocks:
            h = block(h, y)
        x: Tensor = self.conv(F.relu(self.norm(h))).tanh()
        return x


def multiples(width: int, layers: int, channels: Channels, most: int) -> list[int]:
    """w, 2w, 4w, ..., from the largest map to the smallest, at most `most` times w; or w each."""
    return [width * (min(2**i, most) if channels == "doubling" else 1) for i in range(layers)]


# ---- discriminators --------------------------------------------------------------------------------------


@component
class ResNetDiscriminator(DiscriminatorConfig):
    """`FirstDownBlock` C -> w, `DownBlock`s -> 2w -> 4w -> 8w -> 16w at 2x2 from 64x64, ReLU, sum over positions, head.

    The discriminators of SN-GAN (Miyato et al. 2018, app. B.4) and of the projection discriminator (Miyato & Koyama
    2018, fig. 14; Head("projection") goes with it), and WGAN-GP's critic of 32x32 (Gulrajani et al. 2017, app. F). For
    the resolutions of `ResNetGenerator`, and initialised like it. The head reads one vector per image.

        SN-GAN 32                ResNetDiscriminator(width=128, channels="constant")
        SN-GAN 48, 64, 128       ResNetDiscriminator()
        WGAN-GP 32               ResNetDiscriminator(width=128, channels="constant", pool="mean")
        WGAN-GP 64               ResNetCritic()

    width: w, the channels of the first block.
    channels: "doubling": each block has twice the channels of the one before, up to 16w. They halve 64x64 to 2x2; 48x48
        to 3x3 and other sizes to 4x4 to 7x7, and there a block follows that keeps the size. "constant": w each; they
        halve to 8x8 to 14x14, and two follow that keep the size.
    pool: "sum" or "mean" over the positions of the last map.
    norm: before each ReLU of all blocks but the first, "none" or "layer", which undoes the bound of spectral norm.
    """

    width: int = Field(default=64, ge=1)
    channels: Channels = "doubling"
    pool: Literal["sum", "mean"] = "sum"
    norm: Annotated[Literal["none", "layer"], NONE_IS_A_WORD] = "none"

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        _, halvings = sizes(spec, type(self).__name__)
        halving, keeping = (max(halvings - 1, 1), 2) if self.channels == "constant" else (halvings, 1)
        if self.channels == "doubling":
            halving, keeping = HALVINGS.get(spec.resolution, (halving, keeping))
        widths = multiples(self.width, halving + keeping, self.channels, 16)
        body = nn.Sequential(
            FirstDownBlock(spec.channels, self.width),
            *(
                DownBlock(c_in, c_out, halve=i < halving, norm=self.norm)
                for i, (c_in, c_out) in enumerate(pairwise(widths), start=1)
            ),
            nn.ReLU(),
            GlobalPool(self.pool),
        )
        return Discriminator(body, head(widths[-1]))


@component
class ResNetCritic(DiscriminatorConfig):
    """3x3 C -> w, `DownBlock`s -> 2w -> 4w -> 8w -> 8w at 4x4 from 64x64, then the head on all values of that map.

    WGAN-GP's critic of 64x64 (Gulrajani et al. 2017; `GoodDiscriminator` of the authors' code), for the resolutions of
    `ResNetGenerator`. Weights as there.

    width: w.
    norm: before each ReLU, "layer" or "none". The first is theirs, for a penalty per image.
    """

    width: int = Field(default=64, ge=1)
    norm: Annotated[Literal["layer", "none"], NONE_IS_A_WORD] = "layer"

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        base, halvings = sizes(spec, type(self).__name__)
        widths = multiples(self.width, halvings + 1, "doubling", 8)
        body = nn.Sequential(
            convolution(spec.channels, self.width),
            *(DownBlock(c_in, c_out, norm=self.norm) for c_in, c_out in pairwise(widths)),
            nn.Flatten(),
        )
        return Discriminator(body, head(widths[-1] * base**2, base**2))
