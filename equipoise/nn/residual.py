"""Residual blocks, and networks of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.compute.recompute import recomputed
from equipoise.core.types import ImageSpec

from .attention import SelfAttention
from .conditioning import MiddleConcat
from .init import glorot_
from .layers import conditions, joined
from .norms import NormKind, make_norm, normalise
from .resample import enlarge
from .sizes import Start, rectangle


def convolution(c_in: int, c_out: int, kernel: int = 3, *, gain: float = 1.0, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the map's size: weights uniform, variance 2 gain² / (fan_in + fan_out), biases 0."""
    layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
    glorot_(layer, gain)
    return layer


def residual(c_in: int, c_out: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution between two ReLUs. ReLUs halve the variance, so its weights have twice the usual variance."""
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


class UpBlock(nn.Module):
    """shortcut(h) + residual(h), (N, c_in, H, W) -> (N, c_out, 2H, 2W).

    residual: norm, ReLU, up, 3x3, norm, ReLU, 3x3.  shortcut: up, 1x1.

    norm: features -> layer. Both norms of a block may read a condition, such as the class.
    conv: (c_in, c_out, kernel) -> layer.
    bias: whether the first convolution has a bias; norm2 cancels it.
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
    """shortcut(h) + residual(h), (N, c_in, H, W) -> (N, c_out, H/2, W/2), or (N, c_out, H, W) without `halve`.

    residual: norm, ReLU, 3x3 to `hidden`, norm, ReLU, 3x3 to c_out, mean of 2x2.  shortcut: 1x1, mean of 2x2; h itself
    where the shape does not change.

    hidden: channels between the two convolutions; None: c_in.
    first: the block reads an image, so no norm and no ReLU come before its first layer.
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
        out: Tensor = self.pool(h) + self.shortcut(self.pool(x))  # the mean before 1x1 is the same, and cheaper
        return out


GENERATOR = {
    2: (4, 4, 4),
    3: (4, 4, 4, 4),
    4: (16, 16, 8, 4, 2),
    5: (16, 16, 8, 4, 2, 1),
    6: (16, 16, 8, 8, 4, 2, 1),
    7: (16, 16, 8, 8, 4, 2, 1, 1),
}
"""Channels of G's maps, smallest map first, in units of G's width, by the number of doublings.

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
"""Output channels of D's blocks, largest map first, in units of D's width, by the number of doublings."""


HALVINGS = {2: 2, 3: 2, 4: 4, 5: 5, 6: 6, 7: 7}
"""Number of D's blocks that halve the map, from the first on: all but the last, or two of four for small images."""


SIZES = {base << doublings: (base, doublings) for doublings in GENERATOR for base in (4, 5, 6, 7)}
"""resolution: (base, doublings). 16, 20, 24, 28, 32, 40, 48, 56, 64, ..., 896."""


def size(spec: ImageSpec, name: str) -> Start:
    """The smallest map, and the number of doublings: 2 to 7. Rectangles as in `sizes.start`.

    Raises:
        ValueError: for a resolution that is not in `SIZES`, and for rectangles of other kinds.
    """
    if not spec.square:
        return rectangle(spec, name, least=min(GENERATOR), most=max(GENERATOR))
    if spec.resolution not in SIZES:
        below = [s for s in sorted(SIZES) if s < spec.resolution]
        above = [s for s in sorted(SIZES) if s > spec.resolution]
        near = " or ".join(f"data.resolution={s}" for s in (*below[-1:], *above[:1]))
        raise ValueError(
            f"{name} doubles or halves a map between 4x4, 5x5, 6x6 or 7x7 and the image two to seven times, and "
            f"{spec.resolution} is none of these sizes. Resize the data ({near}, or `equipoise data prepare SOURCE OUT "
            "--resolution SIZE`) or choose another architecture."
        )
    base, doublings = SIZES[spec.resolution]
    return Start(base, base, doublings)


def attended(spec: ImageSpec, attention: int, name: str) -> int:
    """The map that both networks attend to: the largest of at most `attention` pixels below the image; 0 for none.

    A map's pixels are counted along its longer side.

    Raises:
        ValueError: if `attention` is below the smallest map that a block ends with.
    """
    begin = size(spec, name)
    hidden = [max(begin.map) << k for k in range(1, begin.doublings)]
    if 0 < attention < hidden[0]:
        raise ValueError(
            f"{name}(attention={attention}) is below the smallest map that a block makes of {spec.size} images, "
            f"{2 * begin.width}x{2 * begin.height}. Set attention={hidden[0]} or more, or 0 for none."
        )
    return max((pixels for pixels in hidden if pixels <= attention), default=0)


def plain(c_in: int, c_out: int, kernel: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size of the map. Its weights are initialised with the rest of the network."""
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=bias)


class ResidualGenerator(nn.Module):
    """Linear z -> w·16 at 4x4 (`GENERATOR`), an `UpBlock` per doubling with attention between, norm, ReLU, conv3, tanh.

    chunks: how z is split, for the linear layer and for each block.
    norm: features -> a norm that reads a block's condition: e(y), its chunk of z, both side by side, or y itself.
    embed: e; None: no class embedding.
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
        begin = size(spec, type(self).__name__)
        widths = [width * units for units in GENERATOR[begin.doublings]]
        self.chunks, self.checkpoint = chunks, checkpoint
        self.embed = embed
        self.linear = nn.Linear(chunks[0], widths[0] * begin.positions)
        self.reshape = nn.Unflatten(1, (widths[0], *begin.map))
        self.blocks = nn.ModuleList()
        pixels = max(begin.map)
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

    checkpoint: each block is `recomputed`.  pool: False returns the last map, without ReLU and sum.
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
    """The body of D (`DISCRIMINATOR`), with attention between blocks, and the number of features it returns.

    join: the class joins the map after the first `join` blocks; 0: none.
    """
    doublings = size(spec, name).doublings
    attention = attended(spec, attention, name)
    widths = [spec.channels, *(width * units for units in DISCRIMINATOR[doublings])]
    parts: list[list[nn.Module]] = [[]]
    pixels = max(spec.shape)
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
