"""StyleGAN2: a style scales the weights of each convolution, and demodulation keeps their size (Karras et al. 2020)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.precision import without_autocast
from equipoise.core.types import ImageSpec, component
from equipoise.nn import (
    Discriminator,
    Mapping,
    MinibatchStd,
    NoiseMode,
    ScaledConv2d,
    ScaledLinear,
    StyledGenerator,
    blur_filter,
    convolution_down,
    convolution_up,
    downsample,
    lrelu_gain,
    modulated_convolution,
    scaled_lrelu,
    upsample,
)
from equipoise.nn.sizes import Start, rectangle, require_power_of_two

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["StyleGAN2Discriminator", "StyleGAN2Generator"]

Architecture = Literal["skip", "resnet", "orig"]

# ---- shared by both networks -----------------------------------------------------------------------------


def maps(spec: ImageSpec, name: str) -> dict[int, tuple[int, int]]:
    """(H, W) of maps from the smallest to the image, by size. Square maps of 4, 8, 16, ... pixels have that size.

    Rectangles double as often, from a map as in `nn.sizes.start`. The size of a map, which names its block and sets its
    channels, is then 4 · 2^k after k doublings.

    Raises:
        ValueError: for squares, unless the resolution is a power of two from 16 to 1024; for rectangles that are not 2
            to 8 doublings of a small map.
    """
    if spec.square:
        require_power_of_two(spec, name, "a map of 4x4 up to the size")
        begin = Start(4, 4, spec.resolution.bit_length() - 3)
    else:
        begin = rectangle(spec, name, least=2, most=8)
    return {4 << k: (begin.height << k, begin.width << k) for k in range(begin.doublings + 1)}


def arranged(h: Tensor) -> Tensor:
    """`h` with the channels of each pixel side by side in memory, an order that convolutions keep: faster on CPUs."""
    return h.contiguous(memory_format=torch.channels_last)


def channels(size: int, base: int, most: int) -> int:
    """Channels of a map of `size` pixels: base / size, at least 1 and at most `most`."""
    return max(1, min(base // size, most))


# ---- generator -------------------------------------------------------------------------------------------


@component
class StyleGAN2Generator(GeneratorConfig):
    """z -> w by a `Mapping`; a learned 4x4 map, doubled by modulated 3x3 convolutions, each followed by noise.

    Karras et al. 2020, in the form of the PyTorch code of Karras et al. 2020b (StyleGAN2-ADA). Every size has two
    convolutions, the first of which doubles the map and blurs it with [1, 3, 3, 1]; 4x4 has one. After each: noise
    times a learned strength, a bias, and `scaled_lrelu`. All learning rates are equalised inside the layers, so
    `EqualizedLearningRate` has nothing to do here. Images are 16, 32, 64, ..., 1024 pixels, and are not bounded to
    [-1, 1]. Conditional: a linear embedding of the class enters the mapping beside z.

    In training mode styles are mixed and noise is random; in eval mode neither (`StyledGenerator`).

    z_dim, w_dim: lengths of z and w.
    mapping_layers: 8 in the paper, 2 in the "auto" and "cifar" configurations of StyleGAN2-ADA.
    embed_features: length of the embedding of the class; None: w_dim.
    mapping_features: width of the mapping's hidden layers; None: w_dim.
    mapping_lr: learning rate of the mapping, relative to all others.
    w_avg_beta: decay of the average of w, per batch.
    channel_base, channel_max: a map of r pixels has min(channel_base / r, channel_max) channels.
    architecture: "skip": the image is the sum of an image of each size, upsampled; "resnet": residual blocks; "orig":
        neither. In both, only the largest map makes an image.
    conv_clamp: outputs of convolutions are clamped to ± this; None: they are not. 256 in networks that were published
        with mixed precision.
    noise: whether noise is added at all.
    mixing: probability of style mixing.
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 8
    styled: ClassVar[bool] = True

    z_dim: int = Field(default=512, ge=1)
    w_dim: int = Field(default=512, ge=1)
    mapping_layers: int = Field(default=8, ge=1)
    embed_features: int | None = Field(default=None, ge=1)
    mapping_features: int | None = Field(default=None, ge=1)
    mapping_lr: float = Field(default=0.01, gt=0)
    w_avg_beta: float = Field(default=0.995, ge=0, le=1)
    channel_base: int = Field(default=32768, ge=1)
    channel_max: int = Field(default=512, ge=1)
    architecture: Architecture = "skip"
    conv_clamp: float | None = Field(default=None, gt=0)
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
            embed_features=self.embed_features,
            layer_features=self.mapping_features,
            lr_multiplier=self.mapping_lr,
            w_avg_beta=self.w_avg_beta,
        )
        return StyledGenerator(mapping, synthesis, mixing=self.mixing, redraw=self.prior.like)


class Synthesis(nn.Module):
    """ws (N, num_ws, w_dim) -> x (N, C, H, W). Blocks `b4`, `b8`, ..., each with its size in its name.

    The layers of a block read one style after the other. `torgb` reads the style of the next block's first layer.
    """

    def __init__(self, cfg: StyleGAN2Generator, spec: ImageSpec):
        super().__init__()
        shapes = maps(spec, type(cfg).__name__)
        self.sizes = list(shapes)
        widths = [channels(size, cfg.channel_base, cfg.channel_max) for size in self.sizes]
        for size, c_in, c_out in zip(self.sizes, [None, *widths], widths, strict=False):
            makes_image = cfg.architecture == "skip" or size == self.sizes[-1]
            image_channels = spec.channels if makes_image else None
            self.add_module(f"b{size}", SynthesisBlock(cfg, shapes[size], c_in, c_out, image_channels))
        self.num_ws = 2 * len(self.sizes)

    def forward(self, ws: Tensor, noise_mode: NoiseMode = "const") -> Tensor:
        h: Tensor | None = None
        image: Tensor | None = None
        styles = list(ws.unbind(1))
        for i, size in enumerate(self.sizes):
            first = max(2 * i - 1, 0)
            h, image = self.get_submodule(f"b{size}")(h, image, styles[first : 2 * i + 2], noise_mode)
        assert image is not None
        return image.contiguous()


class SynthesisBlock(nn.Module):
    """Layers of one size. c_in: None: the first block, with a learned map. image_channels: None: no image is made.

    shape: (H, W) of its maps.
    """

    resample_filter: Tensor

    def __init__(
        self,
        cfg: StyleGAN2Generator,
        shape: tuple[int, int],
        c_in: int | None,
        c_out: int,
        image_channels: int | None,
    ):
        super().__init__()
        self.register_buffer("resample_filter", blur_filter())
        self.residual = cfg.architecture == "resnet" and c_in is not None
        self.first, self.makes_image = c_in is None, image_channels is not None
        if c_in is None:
            self.const = nn.Parameter(torch.randn(c_out, *shape))
        else:
            self.conv0 = SynthesisLayer(cfg, c_in, c_out, shape, up=2)
        self.conv1 = SynthesisLayer(cfg, c_out, c_out, shape)
        if image_channels is not None:
            self.torgb = ToRGB(cfg, c_out, image_channels)
        if self.residual:
            assert c_in is not None
            self.skip = Skip(c_in, c_out, up=2)

    def forward(
        self, h: Tensor | None, image: Tensor | None, styles: list[Tensor], noise_mode: NoiseMode
    ) -> tuple[Tensor, Tensor | None]:
        """styles: of conv0 (not in the first block), conv1, torgb, (N, w_dim) each."""
        *_, before, style, of_image = [styles[0], *styles]
        half = math.sqrt(0.5)
        if self.first:
            h = arranged(self.const.expand(style.shape[0], -1, -1, -1))
            h = self.conv1(h, style, noise_mode)
        elif self.residual:
            y = self.skip(h, gain=half)
            h = y + self.conv1(self.conv0(h, before, noise_mode), style, noise_mode, gain=half)
        else:
            h = self.conv1(self.conv0(h, before, noise_mode), style, noise_mode)
        assert h is not None
        if image is not None:
            image = upsample(image, self.resample_filter)
        if self.makes_image:
            made = self.torgb(h, of_image)
            image = made if image is None else image + made
        return h, image


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution, noise, bias, `scaled_lrelu`. h (N, I, H, W), w (N, w_dim) -> (N, O, up H, up W)."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(self, cfg: StyleGAN2Generator, c_in: int, c_out: int, shape: tuple[int, int], up: int = 1):
        super().__init__()
        self.up, self.clamp, self.noisy = up, cfg.conv_clamp, cfg.noise
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3))
        if self.noisy:
            self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.register_buffer("resample_filter", blur_filter())
        if self.noisy:
            self.register_buffer("noise_const", torch.randn(shape))
        self.affine = ScaledLinear(cfg.w_dim, c_in, bias_init=1.0)

    def forward(self, h: Tensor, w: Tensor, noise_mode: NoiseMode, gain: float = 1.0) -> Tensor:
        """gain: factor of the output, and of the clamp."""
        styles, scale = style(self.affine, w), lrelu_gain(gain)
        h = modulated_convolution(
            h,
            self.weight,
            styles,
            up=self.up,
            padding=1,
            filter=self.resample_filter,
            gain=scale,
            bias=self.bias * scale,
        )
        noise = self.noise(h, noise_mode)
        if noise is not None:
            h = h.add_(scale * noise)
        return scaled_lrelu(h, gain=gain, clamp=self.clamp, scaled=True)

    def noise(self, h: Tensor, mode: NoiseMode) -> Tensor | None:
        """Noise for maps h, (N, 1, H, W) or (H, W), or None."""
        if not self.noisy or mode == "none":
            return None
        noise = self.noise_const if mode == "const" else h.new_empty(len(h), 1, *h.shape[2:]).normal_()
        return noise.to(h.dtype) * self.noise_strength.to(h.dtype)


class ToRGB(nn.Module):
    """A modulated 1x1 convolution without demodulation, and a bias: h (N, I, H, W), w -> an image, float32 at least."""

    def __init__(self, cfg: StyleGAN2Generator, c_in: int, image_channels: int):
        super().__init__()
        self.clamp, self.gain = cfg.conv_clamp, 1 / math.sqrt(c_in)
        self.weight = nn.Parameter(torch.randn(image_channels, c_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))
        self.affine = ScaledLinear(cfg.w_dim, c_in, bias_init=1.0)

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        scales = (style(self.affine, w) * self.gain).to(h.dtype)
        weights = self.weight.flatten(1).to(h.dtype) * scales[:, None]  # a 1x1 convolution for each image: (N, 3, I)
        x = torch.bmm(h.movedim(1, -1).flatten(1, 2), weights.mT)  # (N, H · W, 3)
        x = x.to(torch.promote_types(x.dtype, torch.float32)) + self.bias
        x = torch.unflatten(x.mT, 2, h.shape[2:])
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


def style(affine: nn.Module, w: Tensor) -> Tensor:
    """Scales of a layer's input channels, in the precision of w even under autocast."""
    with without_autocast(w):
        scales: Tensor = affine(w)
    return scales


class Skip(ScaledConv2d):
    """A 1x1 convolution to twice (up=2) or half (down=2) the size, without bias and activation."""

    resample_filter: Tensor

    def __init__(self, c_in: int, c_out: int, up: int = 1):
        super().__init__(c_in, c_out, 1, bias=False)
        self.up = up
        self.register_buffer("resample_filter", blur_filter())

    def forward(self, h: Tensor, gain: float = 1.0) -> Tensor:
        weight = self.weight * (self.gain * gain)
        resampled = convolution_up if self.up == 2 else convolution_down
        return resampled(h, weight, self.resample_filter)


# ---- discriminator ---------------------------------------------------------------------------------------


@component
class StyleGAN2Discriminator(DiscriminatorConfig):
    """For each size a 3x3 convolution and one that blurs and halves the map; at 4x4 a convolution and a linear layer.

    Karras et al. 2020. `scaled_lrelu` after each layer; all learning rates are equalised, the head's too.
    `MinibatchStd` before the last convolution lets D compare images: an image's logit then depends on its batch. With
    `Head()`, the last layer is the published one: linear, with a bias. `MappedProjection` is the published head for
    classes. Images are 16, 32, 64, ..., 1024 pixels.

    channel_base, channel_max: a map of r pixels has min(channel_base / r, channel_max) channels.
    architecture: "resnet": residual blocks; "skip": every map also reads the image, downsampled to its size; "orig":
        neither.
    conv_clamp: as in `StyleGAN2Generator`.
    group_size: images of a group of `MinibatchStd`; None: the batch. It must divide the number of images.
    group_channels: number of maps that it appends; 0: D sees each image alone.
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 8

    channel_base: int = Field(default=32768, ge=1)
    channel_max: int = Field(default=512, ge=1)
    architecture: Architecture = "resnet"
    conv_clamp: float | None = Field(default=None, gt=0)
    group_size: int | None = Field(default=4, ge=1)
    group_channels: int = Field(default=1, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        body = Body(self, spec)
        return Discriminator(body, head(body.features, scaled=True))


class Body(nn.Module):
    """x (N, C, H, W) -> features (N, F). Blocks `b32`, `b16`, ... from the images' size to `b4`."""

    def __init__(self, cfg: StyleGAN2Discriminator, spec: ImageSpec):
        super().__init__()
        shapes = maps(spec, type(cfg).__name__)
        sizes = list(shapes)[::-1]
        widths = [channels(size, cfg.channel_base, cfg.channel_max) for size in sizes]
        self.names = [f"b{size}" for size in sizes]
        for name, (c_in, c_out) in zip(self.names, pairwise(widths), strict=False):
            reads = cfg.architecture == "skip" or name == self.names[0]
            self.add_module(name, Block(cfg, c_in, c_out, spec.channels if reads else None))
        self.b4 = Epilogue(cfg, widths[-1], spec.channels, math.prod(shapes[4]))
        self.features = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor | None = None
        image: Tensor | None = arranged(x)
        for name in self.names:
            h, image = self.get_submodule(name)(h, image)
        assert h is not None
        return h


class Block(nn.Module):
    """Layers of one size, then half of it. image_channels: None: this block does not read the image."""

    resample_filter: Tensor

    def __init__(self, cfg: StyleGAN2Discriminator, c_in: int, c_out: int, image_channels: int | None):
        super().__init__()
        self.register_buffer("resample_filter", blur_filter())
        self.architecture, self.reads = cfg.architecture, image_channels is not None
        if image_channels is not None:
            self.fromrgb = Layer(image_channels, c_in, 1, clamp=cfg.conv_clamp)
        self.conv0 = Layer(c_in, c_in, clamp=cfg.conv_clamp)
        self.conv1 = Layer(c_in, c_out, down=2, clamp=cfg.conv_clamp)
        if cfg.architecture == "resnet":
            self.skip = Skip(c_in, c_out)

    def forward(self, h: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(N, c_in, H, W) or None, an image to read -> (N, c_out, H / 2, W / 2), the image of half the size if read."""
        if self.reads:
            assert image is not None
            read = self.fromrgb(image)
            h = read if h is None else h + read
            image = downsample(image, self.resample_filter) if self.architecture == "skip" else None
        if self.architecture != "resnet":
            return self.conv1(self.conv0(h)), image
        half = math.sqrt(0.5)
        y = self.skip(h, gain=half)
        return y + self.conv1(self.conv0(h), gain=half), image


class Layer(ScaledConv2d):
    """A convolution, bias, `scaled_lrelu`. h (N, I, H, W) -> (N, O, H / down, W / down)."""

    resample_filter: Tensor

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, *, down: int = 1, clamp: float | None = None):
        super().__init__(c_in, c_out, kernel)
        self.down, self.clamp = down, clamp
        self.register_buffer("resample_filter", blur_filter())

    def forward(self, h: Tensor, gain: float = 1.0) -> Tensor:
        """gain: factor of the output, and of the clamp."""
        scale = lrelu_gain(gain)
        assert self.bias is not None
        weight, bias = self.weight * (self.gain * scale), self.bias * scale
        if self.down == 2:
            h = convolution_down(h, weight, self.resample_filter, bias)
        else:
            h = F.conv2d(h, weight, bias, padding=self.padding)
        return scaled_lrelu(h, gain=gain, clamp=self.clamp, scaled=True)


class Epilogue(nn.Module):
    """(N, C, 4, 4) -> features (N, C). positions: of the smallest map, 16 for squares."""

    def __init__(self, cfg: StyleGAN2Discriminator, width: int, image_channels: int, positions: int):
        super().__init__()
        if cfg.architecture == "skip":
            self.fromrgb = Layer(image_channels, width, 1)
        self.reads, extra = cfg.architecture == "skip", cfg.group_channels
        self.compare = MinibatchStd(cfg.group_size, extra) if extra else nn.Identity()
        self.conv = Layer(width + extra, width, clamp=cfg.conv_clamp)
        self.fc = ScaledLinear(width * positions, width)

    def forward(self, h: Tensor, image: Tensor | None) -> tuple[Tensor, None]:
        if self.reads:
            h = h + self.fromrgb(image)
        h = self.conv(self.compare(h))
        return scaled_lrelu(self.fc(h.flatten(1))), None


def published(paper: str, size: int, g: dict[str, Any], d: dict[str, Any]) -> Pair:
    return Pair(paper, ImageSpec(size), StyleGAN2Generator(**g), StyleGAN2Discriminator(**d))


PUBLISHED = {
    "stylegan2_256": published(
        "Karras et al. 2020", 256, {"channel_base": 16384}, {"channel_base": 16384, "group_size": 8}
    ),
    "stylegan2_1024": published("Karras et al. 2020", 1024, {}, {}),
}
