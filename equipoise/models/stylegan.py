"""StyleGAN: a style sets the mean and deviation of each channel, in layers that grow (Karras, Laine & Aila 2019)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, TypeVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.precision import without_autocast
from equipoise.core.types import ImageSpec, component
from equipoise.nn import (
    Discriminator,
    LevelOfDetail,
    Mapping,
    MinibatchStd,
    NoiseMode,
    ScaledConv2d,
    ScaledLinear,
    StyledGenerator,
    enlarge,
    shrink,
    upfirdn,
)
from equipoise.nn.sizes import sizes

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["StyleGAN1Discriminator", "StyleGAN1Generator"]

# ---- shared by both networks -----------------------------------------------------------------------------

Layer = TypeVar("Layer", bound=ScaledConv2d | ScaledLinear)


def maps(spec: ImageSpec, name: str) -> list[int]:
    """Sizes of maps from the smallest, 4 to 7 pixels, to the images' size.

    Raises:
        ValueError: if halving the resolution never reaches 4 to 7 pixels, or is not needed to.
    """
    base, doublings = sizes(spec, name)
    return [base << k for k in range(doublings + 1)]


def channels(size: int, base: int, most: int) -> int:
    """Channels of a map of `size` pixels: base / size, at least 1 and at most `most`."""
    return max(1, min(base // size, most))


def he(layer: Layer) -> Layer:
    """`layer` with the factor √2 / √inputs, for a leaky ReLU to follow."""
    layer.gain *= math.sqrt(2)
    return layer


def lrelu(h: Tensor) -> Tensor:
    return F.leaky_relu(h, 0.2)


def widened(weight: Tensor) -> Tensor:
    """Sum of a kernel at four neighbouring places, (O, I, 3, 3) -> (O, I, 4, 4): a 3x3 kernel times 2x2 ones."""
    padded = F.pad(weight, (1, 1, 1, 1))
    return padded[..., 1:, 1:] + padded[..., 1:, :-1] + padded[..., :-1, 1:] + padded[..., :-1, :-1]


class Doubling(ScaledConv2d):
    """Each pixel a square, then a 3x3 convolution: h (N, I, H, W) -> (N, O, 2H, 2W).

    Computed as a transposed 4x4 convolution of stride 2: 16 multiplications for each pixel of h instead of 36. The
    authors' code does so from 128x128 on, and stores the kernel turned there.
    """

    def forward(self, h: Tensor) -> Tensor:
        kernel = widened(self.weight.flip(2, 3)) * self.gain
        return F.conv_transpose2d(h, kernel.transpose(0, 1), self.bias, stride=2, padding=1)


class Halving(ScaledConv2d):
    """A 3x3 convolution, then means over 2x2: h (N, I, H, W) -> (N, O, H / 2, W / 2).

    Computed as a 4x4 convolution of stride 2, as in the authors' code from 128x128 on.
    """

    def forward(self, h: Tensor) -> Tensor:
        return F.conv2d(h, widened(self.weight) * (self.gain / 4), self.bias, stride=2, padding=1)


class Blur(nn.Module):
    """Each channel with outer([1, 2, 1], [1, 2, 1]) / 16, zeros outside: h (N, C, H, W) -> the same shape."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 16)

    def forward(self, h: Tensor) -> Tensor:
        return upfirdn(h, self.kernel, padding=(1, 1, 1, 1))


# ---- generator -------------------------------------------------------------------------------------------


@component
class StyleGAN1Generator(GeneratorConfig):
    """z -> w by a `Mapping`; a learned map, at first ones, doubled by 3x3 convolutions, with a style after each layer.

    Karras, Laine & Aila 2019. Every size has two convolutions, the first of which doubles the map and blurs it with
    [1, 2, 1]; the smallest has the learned map and one convolution. After each: one noise image, times a strength of
    each channel; a bias; LeakyReLU 0.2; `adaptive_norm` by an affine function of w. Each size has a 1x1 convolution to
    an image. All learning rates are equalised inside the layers, so `EqualizedLearningRate` has nothing to do here.

    The smallest map is 4x4 to 7x7, so resolutions are 8, 10, 12, 14, 16, 20, 24, 28, 32, ..., 1024. It grows: images
    have the full size at every level of detail, and mix the images of two sizes in between. They are not bounded to
    [-1, 1]. Conditional: a linear embedding of the class, as long as z, is appended to z before its length is taken.

    In training mode styles are mixed, among the layers in use, and noise is random; in eval mode neither.

    z_dim, w_dim: lengths of z and w.
    mapping_layers: layers of the mapping.
    mapping_features: width of the mapping's hidden layers; None: w_dim.
    mapping_lr: learning rate of the mapping, relative to all others.
    w_avg_beta: decay of the average of w, per batch.
    channel_base, channel_max: a map of r pixels has min(channel_base / r, channel_max) channels.
    noise: whether noise is added at all.
    mixing: probability of style mixing.
    """

    narrowest: ClassVar[int] = 8
    styled: ClassVar[bool] = True

    z_dim: int = Field(default=512, ge=1)
    w_dim: int = Field(default=512, ge=1)
    mapping_layers: int = Field(default=8, ge=1)
    mapping_features: int | None = Field(default=None, ge=1)
    mapping_lr: float = Field(default=0.01, gt=0)
    w_avg_beta: float = Field(default=0.995, ge=0, le=1)
    channel_base: int = Field(default=16384, ge=1)
    channel_max: int = Field(default=512, ge=1)
    noise: bool = True
    mixing: float = Field(default=0.9, ge=0, le=1)

    def build(self, spec: ImageSpec) -> nn.Module:
        synthesis = Synthesis(self, spec)
        mapping = Mapping(
            self.z_dim,
            spec.num_classes,
            self.w_dim,
            synthesis.num_ws,
            num_layers=self.mapping_layers,
            embed_features=self.z_dim,
            layer_features=self.mapping_features,
            lr_multiplier=self.mapping_lr,
            w_avg_beta=self.w_avg_beta,
            first_form=True,
        )
        return StyledGenerator(mapping, synthesis, mixing=self.mixing, in_use=synthesis.in_use, redraw=self.prior.like)


class Synthesis(nn.Module):
    """ws (N, num_ws, w_dim) -> x (N, C, H, W). Blocks `b4`, `b8`, ..., each with its size in its name, read two styles.

    A layer reads one style, and `torgb` none. Layers of sizes that are not in use yet compute nothing.
    """

    def __init__(self, cfg: StyleGAN1Generator, spec: ImageSpec):
        super().__init__()
        self.sizes = maps(spec, type(cfg).__name__)
        widths = [channels(size, cfg.channel_base, cfg.channel_max) for size in self.sizes]
        for size, c_in, c_out in zip(self.sizes, [None, *widths], widths, strict=False):
            self.add_module(f"b{size}", SynthesisBlock(cfg, size, c_in, c_out, spec.channels))
        self.num_ws = 2 * len(self.sizes)
        self.lod = LevelOfDetail(most=len(self.sizes) - 1)

    def in_use(self) -> int:
        """Number of styles that are read at the present level of detail."""
        return self.num_ws - 2 * int(self.lod())

    def forward(self, ws: Tensor, noise_mode: NoiseMode = "const") -> Tensor:
        lod = self.lod()
        missing, fade = int(lod), lod % 1
        blocks = [cast("SynthesisBlock", self.get_submodule(f"b{size}")) for size in self.sizes]
        blocks, styles = blocks[: len(blocks) - missing], ws.unbind(1)
        h = blocks[0](None, styles[:2], noise_mode)
        smaller = h
        for i, block in enumerate(blocks[1:], 1):
            smaller, h = h, block(h, styles[2 * i : 2 * i + 2], noise_mode)
        x = blocks[-1].image(h)
        if fade:
            x = torch.lerp(x, enlarge(blocks[-2].image(smaller), 1), fade)
        return enlarge(x, missing)


class SynthesisBlock(nn.Module):
    """Two layers of one size, and `torgb`. c_in: None: the first block, whose first layer is a learned map."""

    def __init__(self, cfg: StyleGAN1Generator, size: int, c_in: int | None, c_out: int, image_channels: int):
        super().__init__()
        if c_in is None:
            self.const = nn.Parameter(torch.ones(c_out, size, size))
        else:
            self.conv0 = he(Doubling(c_in, c_out, bias=False))
            self.blur = Blur()
        self.first = c_in is None
        self.styled0 = StyledLayer(cfg, c_out, size)
        self.conv1 = he(ScaledConv2d(c_out, c_out, bias=False))
        self.styled1 = StyledLayer(cfg, c_out, size)
        self.torgb = ScaledConv2d(c_out, image_channels, 1)

    def forward(self, h: Tensor | None, styles: tuple[Tensor, Tensor], noise_mode: NoiseMode) -> Tensor:
        """(N, c_in, H / 2, W / 2), or None in the first block; two styles (N, w_dim) -> (N, c_out, H, W)."""
        if self.first:
            h = self.const.expand(styles[0].shape[0], -1, -1, -1)
        else:
            assert h is not None
            h = self.blur(self.conv0(h))
        h = self.styled0(h, styles[0], noise_mode)
        made: Tensor = self.styled1(self.conv1(h), styles[1], noise_mode)
        return made

    def image(self, h: Tensor) -> Tensor:
        """(N, c_out, H, W) -> (N, C, H, W), float32 at least."""
        x: Tensor = self.torgb(h)
        return x.to(torch.promote_types(x.dtype, torch.float32))


class StyledLayer(nn.Module):
    """The part of a layer after its convolution: noise, bias, LeakyReLU, style. h (N, C, H, W), w (N, w_dim) -> h.

    noise_strength: of each channel; it starts at 0.
    """

    noise_const: Tensor

    def __init__(self, cfg: StyleGAN1Generator, c: int, size: int):
        super().__init__()
        self.noisy = cfg.noise
        if self.noisy:
            self.noise_strength = nn.Parameter(torch.zeros(c))
            self.register_buffer("noise_const", torch.randn(size, size))
        self.bias = nn.Parameter(torch.zeros(c))
        self.affine = ScaledLinear(cfg.w_dim, 2 * c)

    def forward(self, h: Tensor, w: Tensor, noise_mode: NoiseMode) -> Tensor:
        if self.noisy and noise_mode != "none":
            noise = self.noise_const if noise_mode == "const" else h.new_empty(len(h), 1, *h.shape[2:]).normal_()
            h = h + noise.to(h.dtype) * self.noise_strength[:, None, None].to(h.dtype)
        h = lrelu(h + self.bias[:, None, None].to(h.dtype))
        with without_autocast(w):
            scale, shift = self.affine(w)[:, :, None, None].chunk(2, dim=1)
        return adaptive_norm(h, scale + 1, shift)


def adaptive_norm(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(h - μ) / √(σ² + 1e-8) · scale + shift, with μ and σ² of each map (Huang & Belongie 2017, "AdaIN").

    h (N, C, H, W), scale and shift (N, C, 1, 1). Computed in float32 at least.
    """
    full = h.to(torch.promote_types(h.dtype, torch.float32))
    variance, mean = torch.var_mean(full, dim=(2, 3), correction=0, keepdim=True)
    return torch.addcmul(shift, full - mean, scale * (variance + 1e-8).rsqrt()).to(h.dtype)


# ---- discriminator ---------------------------------------------------------------------------------------


@component
class StyleGAN1Discriminator(DiscriminatorConfig):
    """For each size a 3x3 convolution, a blur with [1, 2, 1], a 3x3 convolution and the mean over 2x2; the head.

    Karras, Laine & Aila 2019; without the blur it is ProGAN's. LeakyReLU 0.2 after each layer. Each size also has a 1x1
    convolution that reads images. The last map, 4x4 to 7x7, passes `MinibatchStd`, a 3x3 convolution and a linear
    layer. All learning rates are equalised, the head's too. With `Head()` the last layer is the published one: linear,
    with a bias. `PerClass`, one logit for each class, is the published way to read classes, here without the bias. It
    grows like `StyleGAN1Generator`: images come in the full size at every level of detail.

    channel_base, channel_max: a map of r pixels has min(channel_base / r, channel_max) channels.
    group_size: images of a group of `MinibatchStd`; None: the batch. It must divide the number of images.
    group_channels: number of maps that it appends; 0: D sees each image alone.
    """

    narrowest: ClassVar[int] = 8

    channel_base: int = Field(default=16384, ge=1)
    channel_max: int = Field(default=512, ge=1)
    group_size: int | None = Field(default=4, ge=1)
    group_channels: int = Field(default=1, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        body = Body(self, spec)
        return Discriminator(body, head(body.features, scaled=True))


class Body(nn.Module):
    """x (N, C, H, W) -> features (N, F). Blocks `b32`, `b16`, ... from the images' size to the smallest."""

    def __init__(self, cfg: StyleGAN1Discriminator, spec: ImageSpec):
        super().__init__()
        self.sizes = maps(spec, type(cfg).__name__)[::-1]
        smallest = self.sizes[-1]
        widths = [channels(size, cfg.channel_base, cfg.channel_max) for size in (*self.sizes, smallest // 2)]
        *larger, (c_in, self.features) = pairwise(widths)
        for size, (c, c_next) in zip(self.sizes, larger, strict=False):
            self.add_module(f"b{size}", Block(spec.channels, c, c_next))
        self.add_module(f"b{smallest}", Epilogue(cfg, smallest, spec.channels, c_in, self.features))
        self.lod = LevelOfDetail(most=len(self.sizes) - 1)

    def forward(self, x: Tensor) -> Tensor:
        lod = self.lod()
        missing, fade = int(lod), lod % 1
        first, *others = [cast("Block | Epilogue", self.get_submodule(f"b{size}")) for size in self.sizes[missing:]]
        x = shrink(x, missing)
        h: Tensor = first(lrelu(first.fromrgb(x)))
        if fade:
            h = torch.lerp(h, lrelu(others[0].fromrgb(shrink(x, 1))).to(h.dtype), fade)
        for block in others:
            h = block(h)
        return h


class Block(nn.Module):
    """Layers of one size, then half of it: h (N, c_in, H, W) -> (N, c_out, H / 2, W / 2). `fromrgb` reads images."""

    def __init__(self, image_channels: int, c_in: int, c_out: int):
        super().__init__()
        self.fromrgb = he(ScaledConv2d(image_channels, c_in, 1))
        self.conv0 = he(ScaledConv2d(c_in, c_in))
        self.blur = Blur()
        self.conv1 = he(Halving(c_in, c_out))

    def forward(self, h: Tensor) -> Tensor:
        return lrelu(self.conv1(self.blur(lrelu(self.conv0(h)))))


class Epilogue(nn.Module):
    """Layers of the smallest size: h (N, c, H, W) -> features (N, F). `fromrgb` reads images."""

    def __init__(self, cfg: StyleGAN1Discriminator, size: int, image_channels: int, c: int, features: int):
        super().__init__()
        self.fromrgb = he(ScaledConv2d(image_channels, c, 1))
        self.mbstd = MinibatchStd(cfg.group_size, cfg.group_channels) if cfg.group_channels else nn.Identity()
        self.conv = he(ScaledConv2d(c + cfg.group_channels, c))
        self.fc = he(ScaledLinear(c * size**2, features))

    def forward(self, h: Tensor) -> Tensor:
        h = lrelu(self.conv(self.mbstd(h)))
        return lrelu(self.fc(h.flatten(1)))


PUBLISHED = {
    "stylegan_1024": Pair("Karras et al. 2019", ImageSpec(1024), StyleGAN1Generator(), StyleGAN1Discriminator()),
}
