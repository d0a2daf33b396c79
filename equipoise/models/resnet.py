"""Residual networks of SN-GAN, its projection discriminator, and WGAN-GP, for square images of many sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import NONE_IS_A_WORD, ImageSpec, component
from equipoise.nn import ConditionalBatchNorm, Discriminator, in_a_row, joined
from equipoise.nn.init import glorot_
from equipoise.nn.norms import BATCH_NORMS
from equipoise.nn.residual import DownBlock, GlobalPool, UpBlock, convolution
from equipoise.nn.sizes import Channels, multiples, start

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .conditioning import Hidden, Projection
from .head import Head, HeadFactory

__all__ = ["ResNetCritic", "ResNetDiscriminator", "ResNetGenerator"]


HALVINGS = {48: (4, 1), 64: (5, 0), 128: (5, 1)}
"""resolution of squares: (halving blocks, then size-keeping blocks) of SN-GAN's D, at the sizes of the papers."""


# ---- generator -------------------------------------------------------------------------------------------


@component
class ResNetGenerator(GeneratorConfig):
    """Linear z -> 16w at 4x4, `UpBlock`s -> 8w -> 4w -> 2w -> w at 64x64, batch norm, ReLU, 3x3 -> C, tanh.

    The generators of SN-GAN (Miyato et al. 2018, app. B.4), of the projection discriminator (Miyato & Koyama 2018,
    fig. 14) and of WGAN-GP (Gulrajani et al. 2017, app. F and the authors' code). The smallest map is 4x4 to 7x7 and
    each block doubles it: resolutions 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, ... Weights after Glorot &
    Bengio 2010, with twice the variance inside the blocks. Conditional: `ConditionalBatchNorm` in the blocks, with
    gains and biases that start equal for all classes, and plain batch norm at the end.

        SN-GAN 32                ResNetGenerator(width=256, channels="constant")
        SN-GAN 48, 64, 128       ResNetGenerator()
        WGAN-GP 32               ResNetGenerator(width=128, channels="constant")
        WGAN-GP 64               ResNetGenerator(most=8)

    width: w, the channels of the last block.
    channels: "doubling": each smaller map has twice the channels, up to `most` times w. "constant": w everywhere.
    norm: "batch", or "sync_batch" for statistics over all processes.
    most: largest number of channels, in widths.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    channels: Channels = "doubling"
    most: int = Field(default=16, ge=1)
    norm: Literal["batch", "sync_batch"] = "batch"

    def build(self, spec: ImageSpec) -> nn.Module:
        return UpNet(self, spec)


class UpNet(nn.Module):
    def __init__(self, cfg: ResNetGenerator, spec: ImageSpec):
        super().__init__()
        begin = start(spec, type(cfg).__name__)
        batch_norm = BATCH_NORMS[cfg.norm]
        widths = multiples(cfg.width, begin.doublings + 1, cfg.channels, cfg.most)[::-1]

        def norm(features: int) -> nn.Module:
            if spec.num_classes:
                return ConditionalBatchNorm(features, spec.num_classes, batch_norm=batch_norm)
            return batch_norm(features)

        self.linear = nn.Linear(cfg.z_dim, widths[0] * begin.positions)
        glorot_(self.linear)
        self.unflatten = nn.Unflatten(1, (widths[0], *begin.map))
        self.blocks = nn.ModuleList(UpBlock(c_in, c_out, norm) for c_in, c_out in pairwise(widths))
        self.norm = batch_norm(cfg.width)
        self.conv = convolution(cfg.width, spec.channels)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.unflatten(self.linear(z))  # (N, 16w, 4, 4)
        for block in self.blocks:
            h = block(h, y)
        x: Tensor = self.conv(F.relu(self.norm(h))).tanh()
        return x


# ---- discriminators --------------------------------------------------------------------------------------


@component
class ResNetDiscriminator(DiscriminatorConfig):
    """`DownBlock`s C -> w -> 2w -> 4w -> 8w -> 16w at 2x2 from 64x64, ReLU, sum over positions, head.

    The discriminator of SN-GAN (Miyato et al. 2018, app. B.4), the projection discriminator (Miyato & Koyama 2018,
    fig. 14; use it with Head(Projection())), and WGAN-GP's critic for 32x32 (Gulrajani et al. 2017, app. F). Same
    resolutions and initialisation as `ResNetGenerator`. The head reads one vector per image.

        SN-GAN 32                ResNetDiscriminator(width=128, channels="constant")
        SN-GAN 48, 64, 128       ResNetDiscriminator()
        concatenation 128        ResNetDiscriminator(join=3), Head(Hidden())
        WGAN-GP 32               ResNetDiscriminator(width=128, channels="constant", pool="mean")
        WGAN-GP 64               ResNetCritic()

    width: w, the channels of the first block.
    channels: "doubling": each block has twice the channels of the block before, up to 16w. The blocks halve 64x64 to
        2x2. They halve 48x48 to 3x3 and other sizes to 4x4 to 7x7, and one block that keeps the size follows.
        "constant": w each. The blocks halve to 8x8 to 14x14, and two blocks that keep the size follow.
    pool: "sum" or "mean" over the positions of the last map.
    norm: before each ReLU of all blocks but the first: "none", or "layer", which undoes the bound of spectral norm.
    join: the class joins the map after the first `join` blocks (`MiddleConcat`, with Head(Hidden())); 3 in the
        projection paper. 0: the class does not join the body.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    channels: Channels = "doubling"
    pool: Literal["sum", "mean"] = "sum"
    norm: Annotated[Literal["none", "layer"], NONE_IS_A_WORD] = "none"
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        name = type(self).__name__
        begin = start(spec, name)
        halving, keeping = (max(begin.doublings - 1, 1), 2) if self.channels == "constant" else (begin.doublings, 1)
        if self.channels == "doubling" and spec.square:
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

    WGAN-GP's critic for 64x64 (Gulrajani et al. 2017; `GoodDiscriminator` of the authors' code). Same resolutions and
    initialisation as `ResNetGenerator`.

    width: w.
    norm: before each ReLU: "layer", as the authors use with a per-image penalty, or "none".
    join: as in `ResNetDiscriminator`.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    norm: Annotated[Literal["layer", "none"], NONE_IS_A_WORD] = "layer"
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        name = type(self).__name__
        begin = start(spec, name)
        widths = multiples(self.width, begin.doublings + 1, "doubling", 8)
        layers = [
            convolution(spec.channels, self.width),
            *(DownBlock(c_in, c_out, norm=self.norm) for c_in, c_out in joined(widths, self.join, name)),
            nn.Flatten(),
        ]
        join = self.join + (self.join > 0)  # there is a layer before the blocks
        body = in_a_row(layers, join, spec.num_classes)
        return Discriminator(body, head(widths[-1] * begin.positions, begin.positions, joined=self.join > 0))


PUBLISHED = {
    "sngan_resnet_32": Pair(
        "Miyato et al. 2018",
        ImageSpec(32),
        ResNetGenerator(width=256, channels="constant"),
        ResNetDiscriminator(width=128, channels="constant"),
    ),
    "sngan_resnet_48": Pair("Miyato et al. 2018", ImageSpec(48), ResNetGenerator(), ResNetDiscriminator()),
    "sngan_resnet_64": Pair("Miyato et al. 2018", ImageSpec(64), ResNetGenerator(), ResNetDiscriminator()),
    "projection_128": Pair(
        "Miyato & Koyama 2018",
        ImageSpec(128, num_classes=1000),
        ResNetGenerator(),
        ResNetDiscriminator(),
        Head(Projection()),
    ),
    "concat_128": Pair(
        "Miyato & Koyama 2018",
        ImageSpec(128, num_classes=1000),
        ResNetGenerator(),
        ResNetDiscriminator(join=3),
        Head(Hidden()),
    ),
    "wgan_gp_resnet_32": Pair(
        "Gulrajani et al. 2017",
        ImageSpec(32),
        ResNetGenerator(width=128, channels="constant"),
        ResNetDiscriminator(width=128, channels="constant", pool="mean"),
    ),
    "wgan_gp_resnet_64": Pair("Gulrajani et al. 2017", ImageSpec(64), ResNetGenerator(most=8), ResNetCritic()),
}
