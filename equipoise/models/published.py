"""Networks of published files: constructor arguments and weights, under their published names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.core.misfits import first_of, misfits
from equipoise.core.types import ImageSpec

from .base import GeneratorConfig, Pair
from .conditioning import MappedProjection
from .head import Head
from .stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from .stylegan3 import StyleGAN3Generator

__all__ = ["PublishedDiscriminator", "discriminator_settings", "generator_settings", "network"]

Config = Mapping[str, Any]
"""Constructor arguments, as a published file holds them."""
MAPPING = {
    "num_layers": "mapping_layers",
    "embed_features": "embed_features",
    "layer_features": "mapping_features",
    "lr_multiplier": "mapping_lr",
    "w_avg_beta": "w_avg_beta",
}
SYNTHESIS = {
    "channel_base": "channel_base",
    "channel_max": "channel_max",
    "architecture": "architecture",
    "conv_clamp": "conv_clamp",
    "use_noise": "noise",
}
FOURIER = {
    "num_layers": "layers",
    "margin_size": "margin",
    "conv_kernel": "kernel",
    "use_radial_filters": "radial",
} | {
    name: name
    for name in (
        *("channel_base", "channel_max", "num_critical", "first_cutoff", "first_stopband", "last_stopband_rel"),
        *("output_scale", "filter_size", "lrelu_upsampling", "conv_clamp", "magnitude_ema_beta"),
    )
}
BODY = {name: name for name in ("channel_base", "channel_max", "architecture", "conv_clamp")}
GROUPS = {"mbstd_group_size": "group_size", "mbstd_num_channels": "group_channels"}
HEAD = {
    "num_layers": "layers",
    "embed_features": "embed_features",
    "layer_features": "hidden",
    "lr_multiplier": "mapping_lr",
}
"""Names of published arguments -> names of our settings."""
DEFAULTS = {"activation": "lrelu", "resample_filter": [1, 3, 3, 1]}
"""Arguments with one value here, the default."""
OF_COMPUTATION = {"num_fp16_res", "fused_modconv_default", "freeze_layers", "use_fp16", "fp16_channels_last"}
"""Arguments that change how a network is computed or trained, not its function."""


def network(kind: str, config: Config, state: Mapping[str, Tensor]) -> nn.Module:
    """A published network: its constructor arguments `config`, and its weights `state` by their published names.

    kind: "stylegan2/G" or "stylegan3/G", G(z, c) -> x, with `G.mapping` and `G.synthesis`; "stylegan2/D" or
        "stylegan3/D", D(x, c) -> logits (N, 1), `PublishedDiscriminator`. The D of StyleGAN3 is StyleGAN2's, but
        clamps by default.
    config: the arguments of the PyTorch code of StyleGAN2-ADA, with `synthesis_kwargs`, or of StyleGAN3, without.

    The network is in eval mode, in float32. Arguments about float16 are accepted and ignored: the networks compute in
    float32, and `torch.autocast` lowers the precision of all of their convolutions.

    Raises:
        ValueError: for an unknown kind or argument, a value that our networks lack, or weights that do not fit.
    """
    if kind not in MAKERS:
        raise ValueError(f"unknown kind of network {kind!r}; known: {', '.join(MAKERS)}")
    with torch.device("meta"):  # arguments may ask for too much memory: shapes are compared first
        net, weights = MAKERS[kind](config, state)
    if wrong := misfits(weights, net.state_dict()):
        raise ValueError(
            f"the weights do not fit the arguments of {kind}: {first_of(wrong)}. Give the arguments and the weights of "
            "one file"
        )
    net, weights = MAKERS[kind](config, state)
    net.load_state_dict(weights)
    return net.eval()


def generator_settings(kind: str, config: Config) -> tuple[GeneratorConfig, ImageSpec]:
    """Settings of a published generator, and the images that it makes.

    Raises:
        ValueError: as `network`.
    """
    if kind not in SETTINGS:
        raise ValueError(f"unknown kind of generator {kind!r}; known: {', '.join(SETTINGS)}")
    return SETTINGS[kind](config)


class PublishedDiscriminator(nn.Module):
    """net(x, c).fun: x (N, C, H, W), c (N, num_classes) or None -> logits (N, 1)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        logits: Tensor = self.net(x, c).fun
        return logits


# ---- arguments -> settings -------------------------------------------------------------------------------


def stylegan2_settings(config: Config) -> tuple[StyleGAN2Generator, ImageSpec]:
    """Settings of a published generator, and the images that it makes.

    Raises:
        ValueError: as `network`.
    """
    spec, rest = spec_of(config)
    fields: dict[str, Any] = {name: rest.pop(name) for name in ("z_dim", "w_dim") if name in rest}
    mapping, nested = dict(rest.pop("mapping_kwargs", {})), dict(rest.pop("synthesis_kwargs", {}))
    if rest:  # the form of StyleGAN3, whose blocks clamp by default
        nested = {"conv_clamp": 256} | nested | rest
    nested |= dict(nested.pop("block_kwargs", {}))
    fields |= renamed(mapping, MAPPING, "mapping_kwargs") | renamed(nested, SYNTHESIS, "synthesis_kwargs")
    return StyleGAN2Generator(**floats(fields)), spec


def stylegan3_settings(config: Config) -> tuple[StyleGAN3Generator, ImageSpec]:
    """Settings of a published StyleGAN3-T or -R, and the images that it makes.

    Raises:
        ValueError: as `network`.
    """
    spec, rest = spec_of(config)
    fields: dict[str, Any] = {name: rest.pop(name) for name in ("z_dim", "w_dim") if name in rest}
    mapping = dict(rest.pop("mapping_kwargs", {}))
    nested = dict(rest.pop("synthesis_kwargs", {})) | rest
    fields |= renamed(mapping, MAPPING, "mapping_kwargs") | renamed(nested, FOURIER, "arguments")
    return StyleGAN3Generator(**floats(fields)), spec


def discriminator_settings(config: Config, clamp: float | None) -> tuple[StyleGAN2Discriminator, Head, ImageSpec]:
    """Settings of a published discriminator and its head, and the images that it reads.

    clamp: `conv_clamp` where the arguments do not say.

    Raises:
        ValueError: as `network`.
    """
    spec, rest = spec_of(config)
    mapping, epilogue = dict(rest.pop("mapping_kwargs", {})), dict(rest.pop("epilogue_kwargs", {}))
    features = rest.pop("cmap_dim", None)
    rest = {"conv_clamp": clamp} | rest | dict(rest.pop("block_kwargs", {}))
    rest.pop("block_kwargs", None)
    fields = renamed(rest, BODY, "arguments") | renamed(epilogue, GROUPS, "epilogue_kwargs")
    mapped = renamed(mapping, HEAD, "mapping_kwargs")
    head = Head(MappedProjection(features=features, **floats(mapped))) if spec.num_classes else Head()
    return StyleGAN2Discriminator(**floats(fields)), head, spec


def spec_of(config: Config) -> tuple[ImageSpec, dict[str, Any]]:
    """The images, and the other arguments."""
    rest = dict(config)
    try:
        size, channels = rest.pop("img_resolution"), rest.pop("img_channels")
    except KeyError as error:
        raise ValueError(f"the arguments of a published network must have {error}, got {sorted(config)}") from None
    return ImageSpec(int(size), int(channels), int(rest.pop("c_dim", 0))), rest


def renamed(given: Config, names: Mapping[str, str], place: str) -> dict[str, Any]:
    """Our settings from published arguments. Raises ValueError for one that is unknown or fixed to another value."""
    fields = {}
    for name, value in given.items():
        if name in names:
            fields[names[name]] = value
        elif name in DEFAULTS:
            plain = list(value) if isinstance(value, (list, tuple)) else value
            if plain != DEFAULTS[name]:
                raise ValueError(f"{place} with {name}={value!r}: only {name}={DEFAULTS[name]!r} is supported")
        elif name not in OF_COMPUTATION:
            known = ", ".join(sorted({*names, *DEFAULTS, *OF_COMPUTATION}))
            raise ValueError(f"{place} has an unknown argument {name}={value!r}; known: {known}")
    return fields


def floats(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` with floats where published files may hold whole numbers."""
    real = {"conv_clamp", "mapping_lr", "w_avg_beta", "magnitude_ema_beta", "output_scale"}
    real |= {"first_cutoff", "first_stopband", "last_stopband_rel"}
    return {name: float(v) if name in real and v is not None else v for name, v in fields.items()}


# ---- kinds -----------------------------------------------------------------------------------------------

Made = tuple[nn.Module, dict[str, Tensor]]
"""A network, and its weights by the network's names."""


def stylegan2_generator(config: Config, state: Mapping[str, Tensor]) -> Made:
    settings, spec = stylegan2_settings(config)
    return settings.build(spec), dict(state)


def stylegan2_discriminator(config: Config, state: Mapping[str, Tensor], clamp: float | None = None) -> Made:
    settings, head, spec = discriminator_settings(config, clamp)
    layer = "out" if spec.num_classes else "linear"

    def ours(name: str) -> str:
        if name.startswith("mapping."):
            return f"net.head.conditioning.{name}"
        if name.startswith("b4.out."):
            return f"net.head.conditioning.{layer}.{name.removeprefix('b4.out.')}"
        return f"net.body.{name}"

    net = PublishedDiscriminator(head.build(settings.build, spec))
    return net, {ours(name): tensor for name, tensor in state.items()}


def stylegan3_generator(config: Config, state: Mapping[str, Tensor]) -> Made:
    settings, spec = stylegan3_settings(config)
    return settings.build(spec), dict(state)


def stylegan3_discriminator(config: Config, state: Mapping[str, Tensor]) -> Made:
    return stylegan2_discriminator(config, state, clamp=256.0)


MAKERS = {
    "stylegan2/G": stylegan2_generator,
    "stylegan2/D": stylegan2_discriminator,
    "stylegan3/G": stylegan3_generator,
    "stylegan3/D": stylegan3_discriminator,
}

SETTINGS: dict[str, Callable[[Config], tuple[GeneratorConfig, ImageSpec]]] = {
    "stylegan2/G": stylegan2_settings,
    "stylegan3/G": stylegan3_settings,
}


def stylegan3(size: int, channel_base: int) -> dict[str, Pair]:
    """T and R of Karras et al. 2021. channel_base: of T and of D; R has twice as many channels, in 1x1 convolutions."""
    beta = 0.5 ** (32 / 20000)  # for batches of 32
    T = StyleGAN3Generator(channel_base=channel_base, magnitude_ema_beta=beta)
    R = replace(T, channel_base=2 * channel_base, channel_max=1024, kernel=1, radial=True)
    D = StyleGAN2Discriminator(channel_base=channel_base)
    made = {f"stylegan3_t_{size}": T, f"stylegan3_r_{size}": R}
    return {name: Pair("Karras et al. 2021", ImageSpec(size), G, D) for name, G in made.items()}


PUBLISHED = stylegan3(256, 16384) | stylegan3(1024, 32768)
