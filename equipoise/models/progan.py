"""ProGAN: networks that start small and grow a layer at a time, on the schedule of `growth` (Karras et al. 2018)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import NONE_IS_A_WORD, ImageSpec, component
from equipoise.nn import (
    Discriminator,
    LevelOfDetail,
    MinibatchStd,
    OneHot,
    PixelNorm,
    enlarge,
    labels,
    shrink,
)
from equipoise.nn.init import he
from equipoise.nn.sizes import sizes

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["ProGANDiscriminator", "ProGANGenerator"]


# ---- shared by both networks -----------------------------------------------------------------------------


class Doubled(nn.Module):
    """(N, F, H, W) -> (N, F, 2H, 2W), each pixel a square."""

    def forward(self, h: Tensor) -> Tensor:
        return enlarge(h, 1)


def maps(spec: ImageSpec, name: str) -> list[int]:
    """Sizes of maps from the smallest, 4 to 7 pixels, to the images' size.

    Raises:
        ValueError: if halving the resolution never reaches 4 to 7 pixels.
    """
    base, doublings = (spec.resolution, 0) if spec.square and 4 <= spec.resolution <= 7 else sizes(spec, name)
    return [base << k for k in range(doublings + 1)]


def channels(pixels: int, width: int, full_until: int) -> int:
    """Channels of a map of size `pixels`: `width` up to `full_until`, halved for each doubling beyond; at least 1."""
    return max(1, min(width, width * full_until // pixels))


def conv(c_in: int, c_out: int, kernel: int = 3, gain: float = math.sqrt(2)) -> nn.Module:
    return he(nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2), c_in * kernel**2, gain)


# ---- generator -------------------------------------------------------------------------------------------


@component
class ProGANGenerator(GeneratorConfig):
    """z -> 512 at 4x4, then for each size twice a 3x3 convolution, after nearest-neighbour doubling; 1x1 to an image.

    Karras et al. 2018, table 2: LeakyReLU 0.2 and `PixelNorm` after each convolution, except the one at each size that
    outputs images. z is divided by its length and multiplied by √z_dim. The smallest map is 4x4 to 7x7, so
    resolutions are 4 to 8, 10, 12, 14, 16, 20, 24, 28, 32, ..., 1024. Images have the full size at every level of
    detail; between two levels they mix the images of two sizes (fig. 2). Weights N(0, 2 / inputs), N(0, 1 / inputs) in
    layers that output images, biases 0; use them with `EqualizedLearningRate`. Conditional: the class, one-hot, is
    appended to z before its length is taken, as in the authors' code.

    width: channels of maps of up to `full_until` pixels. Each doubling beyond halves them: 16 at 1024.
    output: "linear", as in the paper, may leave [-1, 1]; "tanh" stays inside.
    full_until: the largest size of maps, in pixels, with `width` channels.
    """

    z_dim: int = Field(default=512, ge=1)
    width: int = Field(default=512, ge=1)
    full_until: int = Field(default=32, ge=1)
    output: Literal["tanh", "linear"] = "tanh"

    def build(self, spec: ImageSpec) -> nn.Module:
        return Growing(self, spec)


class Growing(nn.Module):
    def __init__(self, cfg: ProGANGenerator, spec: ImageSpec):
        super().__init__()
        sides = maps(spec, type(cfg).__name__)
        widths = [channels(side, cfg.width, cfg.full_until) for side in sides]
        self.onehot = OneHot(spec.num_classes) if spec.num_classes else None
        inputs = cfg.z_dim + spec.num_classes
        self.normalize = PixelNorm()

        def activated(layer: nn.Module) -> list[nn.Module]:
            return [layer, nn.LeakyReLU(0.2, inplace=True), PixelNorm()]

        project = nn.ConvTranspose2d(inputs, widths[0], sides[0])
        first = [
            nn.Unflatten(1, (inputs, 1, 1)),
            *activated(he(project, inputs * sides[0] ** 2)),  # as if a convolution read z at every position
            *activated(conv(widths[0], widths[0])),
        ]
        self.blocks = nn.ModuleList([nn.Sequential(*first)])
        for c_in, c_out in pairwise(widths):
            layers = [Doubled(), *activated(conv(c_in, c_out)), *activated(conv(c_out, c_out))]
            self.blocks.append(nn.Sequential(*layers))
        self.to_image = nn.ModuleList(conv(width, spec.channels, kernel=1, gain=1.0) for width in widths)
        self.output = nn.Tanh() if cfg.output == "tanh" else nn.Identity()
        self.lod = LevelOfDetail(most=len(sides) - 1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.onehot is not None:
            z = torch.cat([z, self.onehot(labels(y))], dim=1)
        lod = self.lod()
        missing, fade = int(lod), lod % 1
        last = len(self.blocks) - 1 - missing  # the largest size in use
        h = self.normalize(z)
        for block in self.blocks[:last]:
            h = block(h)
        x = self.to_image[last](self.blocks[last](h))
        if fade:
            x = torch.lerp(x, enlarge(self.to_image[last - 1](h), 1), fade)
        return enlarge(self.output(x), missing)


# ---- discriminator ---------------------------------------------------------------------------------------


@component
class ProGANDiscriminator(DiscriminatorConfig):
    """The mirror image of `ProGANGenerator`: for each size twice a 3x3 convolution, then the mean over 2x2; the head.

    Karras et al. 2018, table 2: LeakyReLU 0.2 after each layer. Each size also has a 1x1 convolution that reads images.
    The last map, 4x4 to 7x7, passes a 3x3 convolution and a linear layer to `width` features. Images come in the full
    size at every level of detail, and D halves them once per level. Weights N(0, 2 / inputs), biases 0; use them with
    `EqualizedLearningRate`.

    width, full_until: as in `ProGANGenerator`.
    minibatch: "std": `MinibatchStd` on the last map (sec. 3). An image's logit then depends on its batch.
    group_size: of `MinibatchStd`. A group size of the batch size or more compares the whole batch.
    """

    width: int = Field(default=512, ge=1)
    full_until: int = Field(default=32, ge=1)
    minibatch: Annotated[Literal["none", "std"], NONE_IS_A_WORD] = "none"
    group_size: int = Field(default=4, ge=1)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        return Discriminator(Shrinking(self, spec), head(self.width))


class Shrinking(nn.Module):
    """ProGAN's discriminator body. `entries[lod]` reads images of each size, the largest first."""

    def __init__(self, cfg: ProGANDiscriminator, spec: ImageSpec):
        super().__init__()
        sides = maps(spec, type(cfg).__name__)[::-1]
        widths = [channels(side, cfg.width, cfg.full_until) for side in sides]

        def activated(layer: nn.Module) -> list[nn.Module]:
            return [layer, nn.LeakyReLU(0.2, inplace=True)]

        self.entries = nn.ModuleList()
        for c_in, c_out in pairwise(widths):
            layers = [*activated(conv(c_in, c_in)), *activated(conv(c_in, c_out)), nn.AvgPool2d(2)]
            self.entries.append(Entry(spec.channels, c_in, layers))
        smallest, values = widths[-1], widths[-1] * sides[-1] ** 2
        compare = [MinibatchStd(cfg.group_size)] if cfg.minibatch == "std" else []
        layers = [
            *compare,
            *activated(conv(smallest + len(compare), smallest)),
            nn.Flatten(),
            *activated(he(nn.Linear(values, cfg.width), values)),
        ]
        self.entries.append(Entry(spec.channels, smallest, layers))
        self.lod = LevelOfDetail(most=len(sides) - 1)

    def forward(self, x: Tensor) -> Tensor:
        lod = self.lod()
        missing, fade = int(lod), lod % 1
        first, *others = cast("list[Entry]", list(self.entries)[missing:])
        x = shrink(x, missing)
        h: Tensor = first.block(first.from_image(x))
        if fade:
            h = torch.lerp(h, others[0].from_image(shrink(x, 1)), fade)
        for entry in others:
            h = entry.block(h)
        return h


class Entry(nn.Module):
    """Layers of one size: `from_image` reads images; `block` maps to half the size, or to the features."""

    def __init__(self, image_channels: int, width: int, layers: list[nn.Module]):
        super().__init__()
        self.from_image = nn.Sequential(conv(image_channels, width, kernel=1), nn.LeakyReLU(0.2, inplace=True))
        self.block = nn.Sequential(*layers)


PUBLISHED = {
    f"progan_{size}": Pair("Karras et al. 2018", ImageSpec(size), ProGANGenerator(), ProGANDiscriminator())
    for size in (128, 1024)
}
