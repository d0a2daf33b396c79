"""Residual networks of SN-GAN, its projection discriminator, and WGAN-GP, for square images of many sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..growth import enlarge
from ..heads import Discriminator, HeadFactory
from ..types import NONE_IS_A_WORD, ImageSpec, component
from .base import DiscriminatorConfig, GeneratorConfig
from .dcgan import BATCH_NORMS, make_norm, sizes
from .layers import in_a_row, joined, require_labels
from .norms import ConditionalBatchNorm, NormKind, normalise

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


def of_block(c_in: int, c_out: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
    """`residual` for 3x3, otherwise `convolution`."""
    return residual(c_in, c_out, bias=bias) if kernel == 3 else convolution(c_in, c_out, kernel, bias=bias)


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

    norm: features -> layer; the two of a block may read a condition, such as the class.
    conv: (c_in, c_out, kernel) -> layer.  bias: of the first, which norm2 cancels.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        norm: Callable[[int], nn.Module],
        conv: Callable[..., nn.Module] = of_block,
        *,
        bias: bool = False,
    ):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), conv(c_in, c_out, 3, bias=bias)
        self.norm2, self.conv2 = norm(c_out), conv(c_out, c_out, 3)
        self.shortcut = conv(c_in, c_out, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.conv1(enlarge(F.relu(normalise(self.norm1, x, condition)), 1))
        h = self.conv2(F.relu(normalise(self.norm2, h, condition)))
        out: Tensor = h + enlarge(self.shortcut(x), 1)  # 1x1 before up is the same, at a quarter of the work
        return out


class DownBlock(nn.Module):
    """shortcut(h) + residual(h), (N, c_in, H, W) -> (N, c_out, H/2, W/2), or of the same size.

    residual: norm, ReLU, 3x3 to `hidden`, norm, ReLU, 3x3 to c_out, mean of 2x2.  shortcut: 1x1, mean of 2x2; h itself
    where nothing changes its form.

    hidden: None is c_in.
    first: it reads an image: no norm and no ReLU before its first layer.
    conv: as in `UpBlock`.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        conv: Callable[..., nn.Module] = of_block,
        *,
        hidden: int | None = None,
        first: bool = False,
        halve: bool = True,
        norm: NormKind = "none",
    ):
        super().__init__()
        hidden = c_in if hidden is None else hidden
        self.first = first
        self.norm1, self.conv1 = make_norm(norm, c_in), conv(c_in, hidden, 3, bias=norm == "none")
        self.norm2, self.conv2 = make_norm(norm, hidden), conv(hidden, c_out, 3)
        self.pool = nn.AvgPool2d(2) if halve else nn.Identity()
        self.shortcut = conv(c_in, c_out, 1) if halve or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(self.norm1(x)))
        h = self.conv2(F.relu(self.norm2(h)))
        out: Tensor = self.pool(h) + self.shortcut(self.pool(x))  # the mean before 1x1 is the same
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
    """`DownBlock`s C -> w -> 2w -> 4w -> 8w -> 16w at 2x2 from 64x64, ReLU, sum over positions, head.

    The discriminators of SN-GAN (Miyato et al. 2018, app. B.4) and of the projection discriminator (Miyato & Koyama
    2018, fig. 14; Head("projection") goes with it), and WGAN-GP's critic of 32x32 (Gulrajani et al. 2017, app. F). For
    the resolutions of `ResNetGenerator`, and initialised like it. The head reads one vector per image.

        SN-GAN 32                ResNetDiscriminator(width=128, channels="constant")
        SN-GAN 48, 64, 128       ResNetDiscriminator()
        concatenation 128        ResNetDiscriminator(join=3), Head("hidden")
        WGAN-GP 32               ResNetDiscriminator(width=128, channels="constant", pool="mean")
        WGAN-GP 64               ResNetCritic()

    width: w, the channels of the first block.
    channels: "doubling": each block has twice the channels of the one before, up to 16w. They halve 64x64 to 2x2; 48x48
        to 3x3 and other sizes to 4x4 to 7x7, and there a block follows that keeps the size. "constant": w each; they
        halve to 8x8 to 14x14, and two follow that keep the size.
    pool: "sum" or "mean" over the positions of the last map.
    norm: before each ReLU of all blocks but the first, "none" or "layer", which undoes the bound of spectral norm.
    join: the class joins the map after so many blocks (`MiddleConcat`, with Head("hidden")); 3 in the projection paper.
        0: not in the body.
    """

    width: int = Field(default=64, ge=1)
    channels: Channels = "doubling"
    pool: Literal["sum", "mean"] = "sum"
    norm: Annotated[Literal["none", "layer"], NONE_IS_A_WORD] = "none"
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        name = type(self).__name__
        _, halvings = sizes(spec, name)
        halving, keeping = (max(halvings - 1, 1), 2) if self.channels == "constant" else (halvings, 1)
        if self.channels == "doubling":
            halving, keeping = HALVINGS.get(spec.resolution, (halving, keeping))
        widths = multiples(self.width, halving + keeping, self.channels, 16)
        first, *others = joined([spec.channels, *widths], self.join, name)
        layers = [
            DownBlock(*first, hidden=self.width, first=True),
            *(
                DownBlock(c_in, c_out, halve=i < halving, norm=self.norm)
                for i, (c_in, c_out) in enumerate(others, start=1)
            ),
            nn.ReLU(),
            GlobalPool(self.pool),
        ]
        return Discriminator(in_a_row(layers, self.join, spec.num_classes), head(widths[-1], joined=self.join > 0))


@component
class ResNetCritic(DiscriminatorConfig):
    """3x3 C -> w, `DownBlock`s -> 2w -> 4w -> 8w -> 8w at 4x4 from 64x64, then the head on all values of that map.

    WGAN-GP's critic of 64x64 (Gulrajani et al. 2017; `GoodDiscriminator` of the authors' code), for the resolutions of
    `ResNetGenerator`. Weights as there.

    width: w.
    norm: before each ReLU, "layer" or "none". The first is theirs, for a penalty per image.
    join: as in `ResNetDiscriminator`.
    """

    width: int = Field(default=64, ge=1)
    norm: Annotated[Literal["layer", "none"], NONE_IS_A_WORD] = "layer"
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        name = type(self).__name__
        base, halvings = sizes(spec, name)
        widths = multiples(self.width, halvings + 1, "doubling", 8)
        layers = [
            convolution(spec.channels, self.width),
            *(DownBlock(c_in, c_out, norm=self.norm) for c_in, c_out in joined(widths, self.join, name)),
            nn.Flatten(),
        ]
        join = self.join + (self.join > 0)  # there is a layer before the blocks
        body = in_a_row(layers, join, spec.num_classes)
        return Discriminator(body, head(widths[-1] * base**2, base**2, joined=self.join > 0))
