"""SAGAN: residual networks with self-attention, and the blocks and channel tables that BigGAN shares with it.

The blocks are SN-GAN's (Miyato et al. 2018, app. B) as SAGAN uses them, wide: both convolutions of a block of D have
its output's channels. A norm may read a condition, and a block may be recomputed in the backward, so they stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, repeat
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..heads import Discriminator, HeadFactory
from ..types import ImageSpec, component
from .attention import SelfAttention
from .base import DiscriminatorConfig, GeneratorConfig
from .dcgan import BATCH_NORMS, CONDITIONAL
from .layers import labels, require_labels
from .norms import ConditionalBatchNorm
from .recompute import recomputed

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


def normalise(norm: nn.Module, h: Tensor, condition: Tensor | None) -> Tensor:
    """norm(h), or norm(h, condition) if it reads one."""
    out: Tensor = norm(h, condition) if isinstance(norm, CONDITIONAL) else norm(h)
    return out


class UpBlock(nn.Module):
    """h (N, C_in, H, W) -> (N, C_out, 2H, 2W): norm, ReLU, nearest ×2, conv3, norm, ReLU, conv3; plus conv1(h) ×2.

    norm: features -> a norm, conditional or not.

    The published shortcut doubles before its 1x1 convolution, which is the same and takes four times the work.
    """

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, h: Tensor, condition: Tensor | None) -> Tensor:
        r = F.interpolate(F.relu(normalise(self.norm1, h, condition)), scale_factor=2)
        r = self.conv2(F.relu(normalise(self.norm2, self.conv1(r), condition)))
        out: Tensor = F.interpolate(self.shortcut(h), scale_factor=2) + r
        return out


class DownBlock(nn.Module):
    """h (N, C_in, H, W) -> (N, C_out, H/2, W/2): ReLU, conv3, ReLU, conv3, mean of 2x2; plus conv1 of h's means.

    first: on the image, without the first ReLU.  halve: False leaves H and W, and with C_in = C_out the shortcut is h.

    But for the first, the published shortcut averages after its 1x1 convolution, which is the same and takes four
    times the work.
    """

    def __init__(self, c_in: int, c_out: int, *, first: bool = False, halve: bool = True):
        super().__init__()
        self.first, self.halve = first, halve
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if halve or c_in != c_out else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        r = self.conv2(F.relu(self.conv1(h if self.first else F.relu(h))))
        if self.halve:
            h, r = F.avg_pool2d(h, 2), F.avg_pool2d(r, 2)
        out: Tensor = self.shortcut(h) + r
        return out


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
            self.blocks.append(UpBlock(c_in, c_out, norm))
            if pixels == attention:
                self.blocks.append(SelfAttention(c_out))
        self.last = nn.Sequential(
            last_norm(widths[-1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[-1], spec.channels, 3, padding=1),
            nn.Tanh(),
        )

    def conditions(self, chunks: Sequence[Tensor], y: Tensor | None) -> Iterator[Tensor | None]:
        """What the norms of each `UpBlock` read."""
        if self.embed is None:
            return iter(chunks) if self.chunks[-1] else repeat(y)
        e = self.embed(labels(y))
        return (torch.cat([e, chunk], dim=1) for chunk in chunks)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *others = z.split(self.chunks, dim=1)
        h, conditions = self.reshape(self.linear(first)), self.conditions(others, y)
        for block in self.blocks:
            inputs = (h, next(conditions)) if isinstance(block, UpBlock) else (h,)
            h = recomputed(block, *inputs) if self.checkpoint else block(*inputs)
        x: Tensor = self.last(h)
        return x


class Body(nn.Module):
    """Blocks, ReLU, and the sum over positions: x (N, C, H, W) -> h (N, F) (Miyato & Koyama 2018, fig. 14).

    checkpoint: each block is `recomputed`.
    """

    def __init__(self, blocks: Sequence[nn.Module], *, checkpoint: bool):
        super().__init__()
        self.blocks, self.checkpoint = nn.ModuleList(blocks), checkpoint

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = recomputed(block, x) if self.checkpoint else block(x)
        return F.relu(x).sum((2, 3))


def down_blocks(spec: ImageSpec, width: int, attention: int) -> tuple[list[nn.Module], int]:
    """The blocks of D (`DISCRIMINATOR`) with attention between, and how many channels the last one has."""
    _, doublings = SIZES[spec.resolution]
    widths = [spec.channels, *(width * units for units in DISCRIMINATOR[doublings])]
    blocks: list[nn.Module] = []
    pixels = spec.resolution
    for i, (c_in, c_out) in enumerate(pairwise(widths)):
        halve = i < HALVINGS[doublings]
        blocks.append(DownBlock(c_in, c_out, first=i == 0, halve=halve))
        pixels //= 1 + halve
        if halve and pixels == attention:
            blocks.append(SelfAttention(c_out))
    return blocks, widths[-1]


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
    """

    width: int = Field(default=64, ge=1)
    attention: int = Field(default=32, ge=0)
    checkpoint: bool = False

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        where = attended(spec, self.attention, type(self).__name__)
        blocks, features = down_blocks(spec, self.width, where)
        body = Body(blocks, checkpoint=self.checkpoint)
        init_xavier(body)
        return Discriminator(body, head(features))
