"""BigGAN-deep: two bottleneck blocks per map, shortcuts that keep channels, and all of z in every norm."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.recompute import recomputed
from equipoise.core.types import ImageSpec, component
from equipoise.nn import Discriminator, LinearConditionalBatchNorm, SelfAttention, enlarge, labels
from equipoise.nn.init import init_orthogonal
from equipoise.nn.norms import BATCH_NORMS
from equipoise.nn.residual import DISCRIMINATOR, GENERATOR, HALVINGS, Body, attended, size

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .conditioning import Projection
from .head import Head, HeadFactory

__all__ = ["BigGANDeepDiscriminator", "BigGANDeepGenerator"]

BOTTLENECK = 4
"""Factor by which a block reduces its channels inside."""


# ---- blocks ----------------------------------------------------------------------------------------------


class DeepUpBlock(nn.Module):
    """Four times norm, ReLU and a convolution, 1x1, 3x3, 3x3, 1x1, with C_in/4 channels inside; plus h's first C_out.

    h (N, C_in, H, W), c (N, condition) -> (N, C_out, H, W), or twice the size with `up`. Maps are enlarged before the
    first 3x3 convolution and in the shortcut. C_out <= C_in.

    norm: features -> `LinearConditionalBatchNorm`.
    """

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module], *, up: bool):
        super().__init__()
        inner = max(1, c_in // BOTTLENECK)
        self.c_out, self.up = c_out, up
        self.norms = nn.ModuleList([norm(c_in), norm(inner), norm(inner), norm(inner)])
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(c_in, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, c_out, 1),
            ]
        )

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        r = h
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            r = F.relu(norm(r, c))
            if i == 1 and self.up:
                r = enlarge(r, 1)
            r = conv(r)
        h = h[:, : self.c_out]
        return (enlarge(h, 1) if self.up else h) + r


class DeepDownBlock(nn.Module):
    """Four times ReLU and a convolution, 1x1, 3x3, 3x3, 1x1, with C_out/4 channels inside; plus h and new channels.

    h (N, C_in, H, W) -> (N, C_out, H, W), or half the size with `halve`: the mean of 2x2, before the last convolution
    and in the shortcut. The shortcut is [h, conv1(h)]; its 1x1 convolution makes the C_out - C_in channels h lacks.
    """

    def __init__(self, c_in: int, c_out: int, *, halve: bool):
        super().__init__()
        inner = max(1, c_out // BOTTLENECK)
        self.halve = halve
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(c_in, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, c_out, 1),
            ]
        )
        self.more = nn.Conv2d(c_in, c_out - c_in, 1) if c_out > c_in else None

    def forward(self, h: Tensor) -> Tensor:
        r = h
        for i, conv in enumerate(self.convs):
            r = F.relu(r)
            if i == 3 and self.halve:
                r = F.avg_pool2d(r, 2)
            r = conv(r)
        if self.halve:
            h = F.avg_pool2d(h, 2)
        return (h if self.more is None else torch.cat([h, self.more(h)], dim=1)) + r


# ---- generator -------------------------------------------------------------------------------------------


@component
class BigGANDeepGenerator(GeneratorConfig):
    """[e(y), z] -> 16w at 4x4, then two bottleneck blocks per map up to w at 128x128. All norms read [e(y), z].

    Brock et al. 2019, app. B, table 7. The second block of a map doubles it and returns the next map's channels. Sizes
    and channels as in `nn.residual.GENERATOR`. Orthogonal weights, biases 0. The paper spectrally normalises all
    weights but the embedding's: g_normalizer=SpectralNorm(skip=("embed",)).

    width: w.
    embed, attention, norm, checkpoint: as in `BigGANGenerator`.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=128, ge=1)
    embed: int = Field(default=128, ge=1)
    attention: int = Field(default=64, ge=0)
    norm: Literal["batch", "sync_batch"] = "batch"
    checkpoint: bool = False

    def build(self, spec: ImageSpec) -> nn.Module:
        return DeepGenerator(self, spec)


class DeepGenerator(nn.Module):
    def __init__(self, cfg: BigGANDeepGenerator, spec: ImageSpec):
        super().__init__()
        name = type(cfg).__name__
        begin = size(spec, name)
        attention = attended(spec, cfg.attention, name)
        widths = [cfg.width * units for units in GENERATOR[begin.doublings]]
        condition = cfg.z_dim + (cfg.embed if spec.num_classes else 0)
        batch_norm = BATCH_NORMS[cfg.norm]

        def norm(features: int) -> nn.Module:
            return LinearConditionalBatchNorm(features, condition, batch_norm=batch_norm)

        self.checkpoint = cfg.checkpoint
        self.embed = nn.Embedding(spec.num_classes, cfg.embed) if spec.num_classes else None
        self.linear = nn.Linear(condition, widths[0] * begin.positions)
        self.reshape = nn.Unflatten(1, (widths[0], *begin.map))
        self.blocks = nn.ModuleList()
        pixels = max(begin.map)
        for c_in, c_out in pairwise(widths):
            pixels *= 2
            self.blocks += [DeepUpBlock(c_in, c_in, norm, up=False), DeepUpBlock(c_in, c_out, norm, up=True)]
            if pixels == attention:
                self.blocks.append(SelfAttention(c_out))
        self.last = nn.Sequential(
            batch_norm(widths[-1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[-1], spec.channels, 3, padding=1),
            nn.Tanh(),
        )
        init_orthogonal(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        c = z if self.embed is None else torch.cat([self.embed(labels(y)), z], dim=1)
        h = self.reshape(self.linear(c))
        for block in self.blocks:
            inputs = (h, c) if isinstance(block, DeepUpBlock) else (h,)
            h = recomputed(block, *inputs) if self.checkpoint else block(*inputs)
        x: Tensor = self.last(h)
        return x


# ---- discriminator ---------------------------------------------------------------------------------------


@component
class BigGANDeepDiscriminator(DiscriminatorConfig):
    """conv3 C -> w, then two bottleneck blocks per map -> 2w -> 4w -> 8w -> 16w -> 16w from 128x128 to 4x4, sum, head.

    Brock et al. 2019, app. B, table 7. The first block of a map halves it and sets its channels. Channels as in
    `nn.residual.DISCRIMINATOR`, whose first entry is the convolution's. Everything else as in `BigGANDiscriminator`.

    width: w.
    attention: size in pixels, as in `BigGANGenerator`; 0: none.
    checkpoint: compute the activations of each block twice instead of storing them (`recomputed`).
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=128, ge=1)
    attention: int = Field(default=64, ge=0)
    checkpoint: bool = False

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        name = type(self).__name__
        doublings = size(spec, name).doublings
        attention = attended(spec, self.attention, name)
        widths = [self.width * units for units in DISCRIMINATOR[doublings]]
        blocks: list[nn.Module] = [nn.Conv2d(spec.channels, widths[0], 3, padding=1)]
        pixels = max(spec.shape)
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            halve = i < HALVINGS[doublings]
            blocks += [DeepDownBlock(c_in, c_out, halve=halve), DeepDownBlock(c_out, c_out, halve=False)]
            pixels //= 1 + halve
            if halve and pixels == attention:
                blocks.append(SelfAttention(c_out))
        body = Body(blocks, checkpoint=self.checkpoint)
        init_orthogonal(body)
        return Discriminator(body, head(widths[-1]))


PUBLISHED = {
    f"biggan_deep_{size}": Pair(
        "Brock et al. 2019",
        ImageSpec(size, num_classes=1000),
        BigGANDeepGenerator(),
        BigGANDeepDiscriminator(),
        Head(Projection()),
    )
    for size in (128, 256, 512)
}
