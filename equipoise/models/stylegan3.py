"""StyleGAN3: a synthesis network that moves and turns with its input, without aliasing (Karras et al. 2021)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.distributed import stack_ranks
from equipoise.compute.precision import without_autocast
from equipoise.compute.recompute import recomputed
from equipoise.core.types import ImageSpec, component
from equipoise.nn import (
    FourierInput,
    Mapping,
    NoiseMode,
    ScaledLinear,
    StyledGenerator,
    filtered_lrelu,
    lowpass,
    modulated_convolution,
    radial_lowpass,
)
from equipoise.nn.sizes import require_power_of_two

from .base import GeneratorConfig

__all__ = ["StyleGAN3Generator"]


@component
class StyleGAN3Generator(GeneratorConfig):
    """z -> w by a `Mapping`; `FourierInput`; modulated convolutions, each followed by `filtered_lrelu`; an image.

    Karras et al. 2021. The defaults are StyleGAN3-T, whose images move with its input. StyleGAN3-R, whose images also
    turn with it, is ``StyleGAN3Generator(channel_base=65536, channel_max=1024, kernel=1, radial=True)``.

    Layer i = 0, ..., L = `layers` has a band up to f_c[i] and a stopband from f_t[i], both growing geometrically up to
    layer L - num_critical; the layers after that are critically sampled. With N pixels, in cycles per image width:

        f_c[i] = first_cutoff · (N/2 / first_cutoff)^e,  f_t[i] = first_stopband · (last_stopband_rel · N/2 /
        first_stopband)^e,  e = min(i / (L - num_critical), 1);
        sampling rate s[i] = 2^⌈log2 min(2 f_t[i], N)⌉, a map of s[i] + 2 margin samples (the last two: N), and
        min(channel_base / 2 / f_c[i], channel_max) channels.

    Layer L is 1x1, linear, and makes the image. Images are 16, 32, ..., 1024 pixels, and are not bounded to [-1, 1].
    All learning rates are equalised inside the layers. Conditional: as in `StyleGAN2Generator`. There is no noise.
    Its discriminator is `StyleGAN2Discriminator`.

    Two averages are buffers: w_avg, and `magnitude_ema` of each layer, the mean square of its input, which is divided
    by its root. In training mode they follow each batch that carries no graph: the images that D's update is shown, as
    in the authors' code. In your own loop, pass ``update=True`` or ``False`` to G.mapping and G.synthesis.

    z_dim, w_dim: lengths of z and w.
    mapping_layers: layers of the mapping.
    embed_features: length of the embedding of the class; None: w_dim.
    mapping_features: width of the mapping's hidden layers; None: w_dim.
    mapping_lr: learning rate of the mapping, relative to all others.
    w_avg_beta: decay of the average of w, per batch.
    channel_base, channel_max: channels of a map, as above.
    layers: L.
    num_critical: critically sampled layers at the end.
    first_cutoff, first_stopband: of layer 0, in cycles per image width.
    last_stopband_rel: stopband of layer L, relative to N/2.
    margin: samples around the image in each map but the last two, which the filters' tails may read.
    output_scale: factor of the image.
    kernel: 3: 3x3 convolutions; 1: 1x1, which any turn leaves alone.
    filter_size: length of the filters, in samples of the lower of their two rates.
    lrelu_upsampling: rate at which the leaky ReLU is applied, relative to the higher rate of its layer.
    radial: whether filters that downsample treat all directions alike. Critically sampled layers keep separable ones.
    conv_clamp: the leaky ReLU and the image are clamped to ± this; None: they are not.
    magnitude_ema_beta: decay of `magnitude_ema`, per batch; 0.5^(batch / 20000) in the authors' configurations.
    mixing: probability of style mixing, as in `StyledGenerator`.
    checkpoint: whether the backward computes activations again instead of storing them.
    """

    styled: ClassVar[bool] = True

    z_dim: int = Field(default=512, ge=1)
    w_dim: int = Field(default=512, ge=1)
    mapping_layers: int = Field(default=2, ge=1)
    embed_features: int | None = Field(default=None, ge=1)
    mapping_features: int | None = Field(default=None, ge=1)
    mapping_lr: float = Field(default=0.01, gt=0)
    w_avg_beta: float = Field(default=0.998, ge=0, le=1)
    channel_base: int = Field(default=32768, ge=1)
    channel_max: int = Field(default=512, ge=1)
    layers: int = Field(default=14, ge=2)
    num_critical: int = Field(default=2, ge=1)
    first_cutoff: float = Field(default=2.0, gt=0)
    first_stopband: float = Field(default=2**2.1, gt=0)
    last_stopband_rel: float = Field(default=2**0.3, gt=0)
    margin: int = Field(default=10, ge=0)
    output_scale: float = Field(default=0.25, gt=0)
    kernel: Literal[1, 3] = 3
    filter_size: int = Field(default=6, ge=1)
    lrelu_upsampling: Literal[1, 2, 4] = 2
    radial: bool = False
    conv_clamp: float | None = Field(default=256.0, gt=0)
    magnitude_ema_beta: float = Field(default=0.999, ge=0, le=1)
    mixing: float = Field(default=0.0, ge=0, le=1)
    checkpoint: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for `num_critical` of `layers` or more: no layer would raise the rate. Set it below.

        Raises ValueError for a stopband that does not lie above its cutoff: a filter needs a band to fall in. Set
        `first_stopband` above `first_cutoff`, and `last_stopband_rel` above 1.
        """
        if self.num_critical >= self.layers:
            raise ValueError(
                f"StyleGAN3Generator(layers={self.layers}, num_critical={self.num_critical}): all layers would be "
                f"critically sampled, and none would raise the rate. Set num_critical to {self.layers - 1} or less."
            )
        if self.first_cutoff >= self.first_stopband or self.last_stopband_rel <= 1:
            raise ValueError(
                f"StyleGAN3Generator: a filter passes up to its cutoff and stops from its stopband on, but "
                f"first_cutoff={self.first_cutoff}, first_stopband={self.first_stopband} and "
                f"last_stopband_rel={self.last_stopband_rel}. Set first_stopband above first_cutoff, and "
                "last_stopband_rel above 1."
            )

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `game.reuse=true`: its averages follow the images of D's update only if these carry no
        graph. Use `game.reuse=false`.
        """
        if cfg.game.reuse:
            raise ValueError(
                "game.reuse=true and generator=StyleGAN3Generator do not go together: w_avg and magnitude_ema follow "
                "the images that D's update is shown without a graph, and reused images carry one, so both would stay "
                "at their first values. Use game.reuse=false."
            )

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
            update_with_graph=False,
        )
        return StyledGenerator(mapping, synthesis, mixing=self.mixing, redraw=self.prior.like)


# ---- the parameters of each layer ------------------------------------------------------------------------


class Band(NamedTuple):
    """A signal between two layers. Frequencies in cycles, rates in samples, per image width.

    half_width: from the cutoff to the end of the transition band.
    size: of its map, in samples.
    """

    cutoff: float
    half_width: float
    rate: int
    size: int
    channels: int


def bands(cfg: StyleGAN3Generator, spec: ImageSpec) -> list[Band]:
    """The outputs of layers 0 to L.

    Raises:
        ValueError: unless the resolution is a power of two from 16 to 1024, and above the first cutoff.
    """
    pixels = spec.resolution
    require_power_of_two(spec, type(cfg).__name__, "its sampling rate up to the size")
    last_cutoff = pixels / 2
    if cfg.first_cutoff > last_cutoff:
        raise ValueError(
            f"StyleGAN3Generator(first_cutoff={cfg.first_cutoff}): images of {pixels} pixels hold frequencies up to "
            f"{last_cutoff:g} only. Set first_cutoff below."
        )
    outputs = []
    for i in range(cfg.layers + 1):
        share = min(i / (cfg.layers - cfg.num_critical), 1)
        cutoff = cfg.first_cutoff * (last_cutoff / cfg.first_cutoff) ** share
        stopband = cfg.first_stopband * (last_cutoff * cfg.last_stopband_rel / cfg.first_stopband) ** share
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, pixels)))
        size = pixels if i >= cfg.layers - 1 else rate + 2 * cfg.margin
        width = round(min(cfg.channel_base / 2 / cutoff, cfg.channel_max))  # half to even
        channels = spec.channels if i == cfg.layers else max(width, 1)
        outputs.append(Band(cutoff, max(stopband, rate / 2) - cutoff, rate, size, channels))
    return outputs


class Stage(NamedTuple):
    """A layer: from one band to another. `up`, `down`: of its `filtered_lrelu`, at `rate`; `padding` of one axis."""

    before: Band
    after: Band
    kernel: int
    rate: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    padding: tuple[int, int]
    radial: bool
    makes_image: bool

    @classmethod
    def of(cls, cfg: StyleGAN3Generator, before: Band, after: Band, index: int) -> Stage:
        makes_image = index == cfg.layers
        kernel = 1 if makes_image else cfg.kernel
        rate = max(before.rate, after.rate) * (1 if makes_image else cfg.lrelu_upsampling)
        up, down = rate // before.rate, rate // after.rate
        up_taps, down_taps = (cfg.filter_size * f if f > 1 and not makes_image else 1 for f in (up, down))
        canvas = before.size + kernel - 1  # the convolution pads by kernel - 1 on each side
        total = (after.size - 1) * down + 1 - canvas * up + up_taps + down_taps - 2
        low = (total + up) // 2
        radial = cfg.radial and index < cfg.layers - cfg.num_critical
        return cls(before, after, kernel, rate, up, down, up_taps, down_taps, (low, total - low), radial, makes_image)

    def filters(self) -> tuple[Tensor | None, Tensor | None]:
        """(taps,) before the leaky ReLU, and (taps,) or (taps, taps) after it. A filter of one tap is None."""
        up = lowpass(self.up_taps, self.before.cutoff, 2 * self.before.half_width, self.rate)
        design = radial_lowpass if self.radial else lowpass
        down = design(self.down_taps, self.after.cutoff, 2 * self.after.half_width, self.rate)
        float32 = [torch.tensor(taps, dtype=torch.float32) for taps in (up, down)]
        return (float32[0] if self.up_taps > 1 else None, float32[1] if self.down_taps > 1 else None)


def stages(cfg: StyleGAN3Generator, spec: ImageSpec) -> list[Stage]:
    """The layers, from the Fourier features to the image."""
    outputs = bands(cfg, spec)
    return [Stage.of(cfg, outputs[max(i - 1, 0)], outputs[i], i) for i in range(len(outputs))]


# ---- the network -----------------------------------------------------------------------------------------


class Synthesis(nn.Module):
    """ws (N, num_ws, w_dim) -> x (N, C, H, W). Layers `L0_36_512`, ..., each with its size and channels in its name.

    The input reads the first style, and each layer the next one.
    """

    def __init__(self, cfg: StyleGAN3Generator, spec: ImageSpec):
        super().__init__()
        layers = stages(cfg, spec)
        first = layers[0].before
        self.output_scale, self.checkpoint = cfg.output_scale, cfg.checkpoint
        self.input = FourierInput(cfg.w_dim, first.channels, first.size, first.rate, first.cutoff)
        self.names = [f"L{i}_{layer.after.size}_{layer.after.channels}" for i, layer in enumerate(layers)]
        for name, layer in zip(self.names, layers, strict=True):
            self.add_module(name, SynthesisLayer(cfg, layer))
        self.num_ws = len(layers) + 1

    def forward(self, ws: Tensor, noise_mode: NoiseMode = "const", *, update: bool | None = None) -> Tensor:  # noqa: ARG002
        """noise_mode: without effect, as there is no noise.

        update: whether `magnitude_ema` follows this batch; None: in training mode, if no graph is recorded.
        """
        moves = self.training and not torch.is_grad_enabled() if update is None else update
        first, *others = ws.unbind(1)
        h: Tensor = self.input(first)
        for name, w in zip(self.names, others, strict=True):
            layer = self.get_submodule(name)
            assert isinstance(layer, SynthesisLayer)
            if moves:
                layer.track(h)  # outside of what the backward repeats
            h = recomputed(layer, h, w) if self.checkpoint else layer(h, w)
        return h.to(torch.promote_types(h.dtype, torch.float32)) * self.output_scale


class SynthesisLayer(nn.Module):
    """A modulated convolution of the input over its usual size, bias, `filtered_lrelu`: h (N, I, size, size), w.

    The authors also divide the weights and the styles by the root of their mean square, which demodulation undoes.
    The layer that makes images is linear: neither demodulated nor filtered.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, cfg: StyleGAN3Generator, stage: Stage):
        super().__init__()
        self.stage, self.clamp, self.beta = stage, cfg.conv_clamp, cfg.magnitude_ema_beta
        c_in, c_out = stage.before.channels, stage.after.channels
        self.weight = nn.Parameter(torch.randn(c_out, c_in, stage.kernel, stage.kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.style_gain = 1 / math.sqrt(c_in * stage.kernel**2) if stage.makes_image else 1.0
        self.register_buffer("magnitude_ema", torch.ones(()))
        up_filter, down_filter = stage.filters()
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)
        self.affine = ScaledLinear(cfg.w_dim, c_in, bias_init=1.0)

    def forward(self, h: Tensor, w: Tensor) -> Tensor:
        stage = self.stage
        with without_autocast(w):
            styles = self.affine(w) * self.style_gain
        h = modulated_convolution(
            h,
            self.weight,
            styles,
            demodulate=not stage.makes_image,
            padding=stage.kernel - 1,
            input_gain=self.magnitude_ema.rsqrt(),
        )
        return filtered_lrelu(
            h,
            self.up_filter,
            self.down_filter,
            self.bias,
            up=stage.up,
            down=stage.down,
            padding=(*stage.padding, *stage.padding),
            gain=1.0 if stage.makes_image else math.sqrt(2),
            slope=1.0 if stage.makes_image else 0.2,
            clamp=self.clamp,
        )

    @torch.no_grad()
    def track(self, h: Tensor) -> None:
        """Move `magnitude_ema` towards the mean of h² over all processes. Each must call this equally often."""
        mean = h.to(self.magnitude_ema.dtype).square().mean()
        count = torch.full_like(mean, len(h))
        means, counts = stack_ranks(torch.stack([mean, count])).unbind(1)
        self.magnitude_ema.copy_(((means * counts).sum() / counts.sum()).lerp(self.magnitude_ema, self.beta))
