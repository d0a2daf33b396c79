"""SAGAN: residual networks with self-attention, and the blocks and channel tables that BigGAN shares with it.

The blocks are SN-GAN's (Miyato et al. 2018, app. B) as SAGAN uses them, wide: both convolutions of a block of D have
its output's channels. A norm may read a condition, and a block may be recomputed in the backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..conditioning import MiddleConcat
from ..heads import Discriminator, HeadFactory
from ..types import ImageSpec, component
from .attention import SelfAttention
from .base import DiscriminatorConfig, GeneratorConfig
from .dcgan import BATCH_NORMS
from .layers import conditions, joined, require_labels
from .norms import ConditionalBatchNorm
from .recompute import recomputed
from .resnet import DownBlock, UpBlock

__all__ = ["SAGANDiscriminator", "SAGANGenerator"]


# ---- sizes and channels ----------------------------------------------------------------------------------

GENERATOR = {
    2: (4, 4, 4),
    3: (4, 4, 4, 4),
    4: (16, 16, 8, 4, 2),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}
"""Channels of G's maps in units of its width, from the smallest on, by how often the map doubles.

From 4x4: 32 pixels (for CIFAR, from the code of BigGAN's authors), 64, 128, 256, 512 (Brock et al. 2019, app. B).
"""

DISCRIMINATOR = {
    2: (4, 4, 4, 4),
    3: (4, 4, 4, 4),
    4: (1, 2, 4, 8, 16),
    5: (1, 2, 4, 8, 16, 16),
    6: (1, 2, 4, 8, 8, 16, 16),
    7: (1, 1, 2, 4, 8, 8, 16, 16),
}
"""Channels that D's blocks end with, in units of its width, from the largest map on."""

HALVINGS = {2: 2, 3: 2, 4: 4, 5: 5, 6: 6, 7: 7}
"""How many of D's blocks, from the first on, halve the map: all but the last; for small images two of four."""

SIZES = {base << doublings: (base, doublings) for doublings in GENERATOR for base in (4, 5, 6, 7)}
"""resolution: (base, doublings). 16, 20, 24, 28, 32, 40, 48, 56, 64, ..., 896."""


def size(spec: ImageSpec, name: str) -> tuple[int, int]:
    """(base, doublings): resolution = base · 2^doublings.

    Raises:
        ValueError: for a resolution that is not in `SIZES`.
    """
    if spec.resolution not in SIZES:
        below = [s for s in sorted(SIZES) if s < spec.resolution]
        above = [s for s in sorted(SIZES) if s > spec.resolution]
        near = " or ".join(f"data.resolution={s}" for s in (*below[-1:], *above[:1]))
        raise ValueError(
            f"{name} doubles or halves a map between 4x4, 5x5, 6x6 or 7x7 and the image two to seven times, and "
            f"{spec.resolution} is none of these sizes. Resize the data ({near}, or `equipoise data prepare SOURCE OUT "
            "--resolution SIZE`) or choose another architecture."
        )
    return SIZES[spec.resolution]


def attended(spec: ImageSpec, attention: int, name: str) -> int:
    """The map that both networks attend to: the largest of at most `attention` pixels below the image; 0 for none.

    Raises:
        ValueError: if `attention` is below the smallest map that a block ends with.
    """
    base, doublings = size(spec, name)
    hidden = [base << k for k in range(1, doublings)]
    if 0 < attention < hidden[0]:
        raise ValueError(
            f"{name}(attention={attention}) is below the smallest map that a block makes of {spec.resolution}x"
            f"{spec.resolution} images, {hidden[0]}x{hidden[0]}. Set attention={hidden[0]} or more, or 0 for none."
        )
    return max((pixels for pixels in hidden if pixels <= attention), default=0)


# ---- blocks ----------------------------------------------------------------------------------------------


def plain(c_in: int, c_out: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size of the map, and is initialised with the whole network."""
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)


# ---- networks --------------------------------------------------------------------------------------------


class ResidualGenerator(nn.Module):
    """Linear z -> w·16 at 4x4 (`GENERATOR`), an `UpBlock` per doubling with attention between, norm, ReLU, conv3, tanh.

    chunks: how z is split, for the linear layer and for each block.
    norm: features -> a norm that reads a block's condition: e(y), its chunk of z, both side by side, or y itself.
    embed: e; None for none.
    """

    def __init__(
        self,
        spec: ImageSpec,
        width: int,
        *,
        chunks: Sequence[int],
        norm: Callable[[int], nn.Module],
        last_norm: Callable[[int], nn.Module],
        embed: nn.Embedding | None,
        attention: int,
        checkpoint: bool,
    ):
        super().__init__()
        base, doublings = SIZES[spec.resolution]
        widths = [width * units for units in GENERATOR[doublings]]
        self.chunks, self.checkpoint = chunks, checkpoint
        self.embed = embed
        self.linear = nn.Linear(chunks[0], widths[0] * base**2)
        self.reshape = nn.Unflatten(1, (widths[0], base, base))
        self.blocks = nn.ModuleList()
        pixels = base
        for c_in, c_out in pairwise(widths):
            pixels *= 2
            self.blocks.append(UpBlock(c_in, c_out, norm, plain, bias=True))
            if pixels == attention:
                self.blocks.append(SelfAttention(c_out))
        self.last = nn.Sequential(
            last_norm(widths[-1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[-1], spec.channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *others = z.split(self.chunks, dim=1)
        h, read = self.reshape(self.linear(first)), conditions(self.embed, others, y)
        for block in self.blocks:
            inputs = (h, next(read)) if isinstance(block, UpBlock) else (h,)
            h = recomputed(block, *inputs) if self.checkpoint else block(*inputs)
        x: Tensor = self.last(h)
        return x


class Body(nn.Module):
    """Blocks, ReLU, and the sum over positions: x (N, C, H, W) -> h (N, F) (Miyato & Koyama 2018, fig. 14).

    checkpoint: each block is `recomputed`.  pool: False returns the last map as it is.
    """

    def __init__(self, blocks: Sequence[nn.Module], *, checkpoint: bool, pool: bool = True):
        super().__init__()
        self.blocks, self.checkpoint, self.pool = nn.ModuleList(blocks), checkpoint, pool

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = recomputed(block, x) if self.checkpoint else block(x)
        return F.relu(x).sum((2, 3)) if self.pool else x


def down_body(
    spec: ImageSpec, width: int, attention: int, join: int, *, checkpoint: bool, name: str
) -> tuple[nn.Module, int]:
    """The body of D (`DISCRIMINATOR`), with attention between blocks, and how many features it makes.

    join: the class joins the map after so many blocks; 0: none.
    """
    _, doublings = size(spec, name)
    attention = attended(spec, attention, name)
    widths = [spec.channels, *(width * units for units in DISCRIMINATOR[doublings])]
    parts: list[list[nn.Module]] = [[]]
    pixels = spec.resolution
    for i, (c_in, c_out) in enumerate(joined(widths, join, name)):
        if 0 < i == join:
            parts.append([])
        halve = i < HALVINGS[doublings]
        parts[-1].append(DownBlock(c_in, c_out, plain, hidden=c_out, first=i == 0, halve=halve))
        pixels //= 1 + halve
        if halve and pixels == attention:
            parts[-1].append(SelfAttention(c_out))
    *front, rest = parts
    body: nn.Module = Body(rest, checkpoint=checkpoint)
    if front:
        body = MiddleConcat(Body(front[0], checkpoint=checkpoint, pool=False), body, spec.num_classes)
    return body, widths[-1]


# ---- SAGAN -----------------------------------------------------------------------------------------------


def init_xavier(net: nn.Module) -> None:
    """Weights of linear layers and convolutions from U(-a, a) with a² = 6 / (fan_in + fan_out), biases 0.

    Glorot & Bengio 2010.
    """
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@component
class SAGANGenerator(GeneratorConfig):
    """z -> 16w at 4x4, then residual blocks -> 16w -> 8w -> 4w -> 2w -> w at 128x128, with self-attention at 32x32.

    Zhang et al. 2019. Every norm of a block is a `ConditionalBatchNorm`, or plain batch norm if unconditional. The
    channels of other sizes are in `GENERATOR`: 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, ..., 128, ..., 896. Xavier
    uniform weights, as in the authors' code. There all weights are spectrally normalised: g_normalizer=SpectralNorm().

    width: w.
    attention: `SelfAttention` after the block that ends with the largest map of at most so many pixels, below the
        image's own; 0 for none. `SAGANDiscriminator` chooses the same map for the same value.
    norm: "sync_batch" for statistics of all processes' images.
    checkpoint: compute the activations of each block twice instead of storing them (`recomputed`).

    Raises:
        ValueError: when built, for another size, or attention below the smallest map.
    """

    width: int = Field(default=64, ge=1)
    attention: int = Field(default=32, ge=0)
    norm: Literal["batch", "sync_batch"] = "batch"
    checkpoint: bool = False

    def build(self, spec: ImageSpec) -> nn.Module:
        name = type(self).__name__
        _, doublings = size(spec, name)
        batch_norm = BATCH_NORMS[self.norm]
        if self.conditional:
            require_labels(name, spec.num_classes)

        def norm(features: int) -> nn.Module:
            if self.conditional:
                return ConditionalBatchNorm(features, spec.num_classes, batch_norm=batch_norm)
            return batch_norm(features)

        G = ResidualGenerator(
            spec,
            self.width,
            chunks=[self.z_dim, *[0] * doublings],
            norm=norm,
            last_norm=batch_norm,
            embed=None,
            attention=attended(spec, self.attention, name),
            checkpoint=self.checkpoint,
        )
        init_xavier(G)
        return G


@component
class SAGANDiscriminator(DiscriminatorConfig):
    """Residual blocks C -> w -> 2w -> 4w -> 8w -> 16w -> 16w from 128x128 to 4x4, self-attention at 32x32, sum, head.

    Zhang et al. 2019. The head reads the sum of the last map over its positions, after a ReLU. The channels of other
    sizes are in `DISCRIMINATOR`; sizes, weights and fields as in `SAGANGenerator`. There all weights, the head's too,
    are spectrally normalised, and the class enters by projection: d_normalizer=SpectralNorm(), Head("projection").

    join: as in `ResNetDiscriminator`.
    """

    width: int = Field(default=64, ge=1)
    attention: int = Field(default=32, ge=0)
    checkpoint: bool = False
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        body, features = down_body(
            spec, self.width, self.attention, self.join, checkpoint=self.checkpoint, name=type(self).__name__
        )
        init_xavier(body)
        return Discriminator(body, head(features, joined=self.join > 0))
