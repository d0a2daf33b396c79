"""Networks in TensorFlow's pickles of StyleGAN2, under their names in PyTorch.

Such a file is a tuple of three networks: G, D and the average of G. Each holds the arguments of the function that
builds it and its variables by name. The names and layouts are converted:

    dense weight (in, out)                -> (out, in)
    convolution (k, k, in, out)           -> (out, in, k, k); `Conv0_up` and G's `Skip` flipped in both directions
    mod_weight, mod_bias                  -> affine.weight, affine.bias, which is 1 + mod_bias
    noise0, noise1, noise2, ... (1,1,r,r) -> noise_const (r, r) of b4.conv1, b8.conv0, b8.conv1, ...

Written from a description: no published file of this kind was at hand to try it on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import log2
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from equipoise.core.pickled_arrays import SCALAR, array_of, scalar_of
from equipoise.core.pickles import Call

from .persistent import Networks, Published, plain

__all__ = ["NETWORK", "networks_of_tuple"]

NETWORK = "dnnlib.tflib.network.Network"
"""The one class that these files name beside arrays."""
OLDEST = 4
"""Least version of a network that is StyleGAN2's. StyleGAN1's is 3, and its layers are others."""
VARIABLES = 10_000

Array = NDArray[Any]
T = TypeVar("T", int, float, bool, str, list[int])


def networks_of_tuple(value: tuple[object, ...], size: int) -> Networks:
    """The networks in a tuple (G, D, G_ema) of recorded TensorFlow networks.

    size: of the file in bytes; the variables of a network must take no more.

    Raises:
        ValueError: for anything else, or for variables that StyleGAN2 does not have.
    """
    if len(value) != 3:
        raise ValueError(f"it holds a tuple of {len(value)}, and the three networks (G, D, G_ema) were expected")
    nets = {}
    for name, net in zip(("G", "D", "G_ema"), value, strict=True):
        try:
            nets[name] = (discriminator if name == "D" else generator)(Recorded(net, size))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return Networks(nets, "TensorFlow")


class Recorded:
    """A recorded TensorFlow network: the arguments of its function, and its variables, each to be taken once."""

    def __init__(self, net: object, size: int):
        self.given: dict[str, Any] = {}
        self.variables: dict[str, Array] = {}
        self.left = size
        self.collect(net, "", 0)

    def collect(self, net: object, prefix: str, depth: int) -> None:
        """Add the variables of a network and of its components, under the names `prefix`..."""
        match net:
            case Call(of=of, args=(), state=dict() as state) if of == NETWORK:
                pass
            case _:
                raise ValueError("it is not a network of StyleGAN's TensorFlow programs")
        version = state.get("version")
        if type(version) is not int or not OLDEST <= version < 100:
            first = " (StyleGAN1's, whose layers are others)" if version in (2, 3) else ""
            raise ValueError(f"its version is {str(version)[:20]}{first}, and versions from {OLDEST} on are read")
        if depth > 2:
            raise ValueError("its components are nested more than two deep")
        arguments = plain(state.get("static_kwargs"))
        self.given = (arguments if isinstance(arguments, dict) else {}) | self.given
        for item in listed(state.get("variables")):
            self.add(prefix, item)
        components = state.get("components")
        components = components.items if isinstance(components, Call) else components or {}
        if not isinstance(components, dict):
            raise ValueError("its components are not a dictionary")
        for name, component in components.items():
            self.collect(component, f"{prefix}{str(name)[:40]}/", depth + 1)

    def add(self, prefix: str, item: object) -> None:
        match item:
            case (str() as name, Call(of=of) as value) if of in SCALAR:  # a variable without dimensions
                array = np.array(scalar_of(value))
            case (str() as name, value):
                array = array_of(value)
            case _:
                raise ValueError("its variables are not pairs of a name and an array")
        self.left -= array.nbytes
        if self.left < 0 or len(self.variables) > VARIABLES:
            raise ValueError("its variables take more memory than the file: it repeats one of them")
        self.variables[f"{prefix}{name[:100]}"] = array.astype(np.float32)

    def argument(self, name: str, default: T) -> T:
        """An argument of the network's function, or the function's own default. Raises ValueError for another type."""
        value = self.given.get(name)
        if value is None:
            return default
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default):
            raise ValueError(f"its {name} is a {type(value).__name__}, and a {type(default).__name__} was expected")
        given: T = value
        return given

    def require_read(self, names: Mapping[str, str]) -> None:
        """Raises ValueError for variables without a name in PyTorch, or two with the same."""
        unknown = [name for name in self.variables if name not in names]
        if unknown:
            raise ValueError(f"it has variables that StyleGAN2 does not have: {', '.join(unknown[:3])}")
        if len(set(names.values())) < len(names):
            raise ValueError("two of its variables are the same one in PyTorch")


def listed(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ValueError("its variables are not a list")
    return list(value)


# ---- layouts ---------------------------------------------------------------------------------------------


def same(x: Array) -> Array:
    return x


def dense(x: Array) -> Array:
    return x.T


def convolution(x: Array) -> Array:
    """(k, k, in, out) -> (out, in, k, k)"""
    return x.transpose(3, 2, 0, 1)


def flipped(x: Array) -> Array:
    """Mirrored in both directions, then as `convolution`: TensorFlow's transposed convolution turns the kernel."""
    return x[::-1, ::-1].transpose(3, 2, 0, 1)


def raised(x: Array) -> Array:
    """A style's bias: TensorFlow adds the 1 when it is used."""
    return x + 1


DIMENSIONS: dict[Callable[[Array], Array], int] = {dense: 2, convolution: 4, flipped: 4}

Rule = tuple[str, str, Callable[[Array], Array]]
"""A pattern of names, the name in PyTorch, and the change of layout."""

MODULATED: tuple[tuple[str, str, Callable[[Array], Array]], ...] = (
    ("bias", "bias", same),
    ("mod_weight", "affine.weight", dense),
    ("mod_bias", "affine.bias", raised),
)
NOISY = (*MODULATED, ("noise_strength", "noise_strength", same))


def rules(place: str, target: str, parts: tuple[tuple[str, str, Callable[[Array], Array]], ...]) -> tuple[Rule, ...]:
    return tuple((f"{place}/{name}", f"{target}.{new}", layout) for name, new, layout in parts)


BLOCK = r"synthesis/(\d+)x\1"
OF_G: tuple[Rule, ...] = (
    ("dlatent_avg", "mapping.w_avg", same),
    ("mapping/LabelEmbed/weight", "mapping.embed.weight", dense),
    ("mapping/LabelEmbed/bias", "mapping.embed.bias", same),
    (r"mapping/Dense(\d+)/weight", r"mapping.fc\1.weight", dense),
    (r"mapping/Dense(\d+)/bias", r"mapping.fc\1.bias", same),
    ("synthesis/4x4/Const/const", "synthesis.b4.const", lambda x: x[0]),
    *rules("synthesis/4x4/Conv", "synthesis.b4.conv1", (("weight", "weight", convolution), *NOISY)),
    *rules(f"{BLOCK}/Conv0_up", r"synthesis.b\1.conv0", (("weight", "weight", flipped), *NOISY)),
    *rules(f"{BLOCK}/Conv1", r"synthesis.b\1.conv1", (("weight", "weight", convolution), *NOISY)),
    *rules(f"{BLOCK}/ToRGB", r"synthesis.b\1.torgb", (("weight", "weight", convolution), *MODULATED)),
    (f"{BLOCK}/Skip/weight", r"synthesis.b\1.skip.weight", flipped),
)
LAYER = (("weight", "weight", convolution), ("bias", "bias", same))
DENSE = (("weight", "weight", dense), ("bias", "bias", same))
OF_D: tuple[Rule, ...] = (
    *rules(r"(\d+)x\1/FromRGB", r"b\1.fromrgb", LAYER),
    *rules(r"(\d+)x\1/Conv0", r"b\1.conv0", LAYER),
    *rules(r"(\d+)x\1/Conv1_down", r"b\1.conv1", LAYER),
    (r"(\d+)x\1/Skip/weight", r"b\1.skip.weight", convolution),
    *rules("4x4/Conv", "b4.conv", LAYER),
    *rules("4x4/Dense0", "b4.fc", DENSE),
    *rules("Output", "b4.out", DENSE),
    *rules("LabelEmbed", "mapping.embed", DENSE),
    *rules(r"Mapping(\d+)", r"mapping.fc\1", DENSE),
)


def converted(net: Recorded, table: tuple[Rule, ...]) -> dict[str, torch.Tensor]:
    """The variables under their names in PyTorch. Raises ValueError for those without."""
    names, state = {}, {}
    for name, array in net.variables.items():
        for pattern, target, layout in table:
            if match := re.fullmatch(pattern, name, re.ASCII):
                names[name] = match.expand(target)
                if array.ndim != DIMENSIONS.get(layout, array.ndim):
                    raise ValueError(f"{name} has {array.ndim} dimensions")
                state[names[name]] = torch.from_numpy(np.array(layout(array), np.float32, order="C"))
                break
    net.require_read(names)
    return state


# ---- networks --------------------------------------------------------------------------------------------


def by_stage(net: Recorded, prefix: str, kind: str, resolution: int) -> bool:
    """Rename `ToRGB_lod0` and `FromRGB_lod0` by their size. Returns whether there were any: architecture "orig".

    Other levels serve growing alone and are left out, as is the level `lod` itself.
    """
    net.variables.pop(f"{prefix}lod", None)
    net.variables.pop("lod", None)
    staged = [name for name in net.variables if name.startswith(f"{prefix}{kind}_lod")]
    for name in staged:
        array, (level, _, rest) = net.variables.pop(name), name.removeprefix(f"{prefix}{kind}_lod").partition("/")
        if level == "0":
            net.variables[f"{prefix}{resolution}x{resolution}/{kind}/{rest}"] = array
    return bool(staged)


def generator(net: Recorded) -> Published:
    """G in the names and arguments of StyleGAN2-ADA."""
    resolution = whole(net, "resolution", 1024)
    stages = by_stage(net, "synthesis/", "ToRGB", resolution)
    stored = [name for name in net.variables if re.fullmatch(r"synthesis/noise[0-9]{1,2}", name)]
    noise = {name: net.variables.pop(name) for name in stored}
    state = converted(net, OF_G)
    for name, array in noise.items():
        i = int(name.removeprefix("synthesis/noise"))
        place = "b4.conv1" if i == 0 else f"b{2 ** ((i + 5) // 2)}.conv{(i + 1) % 2}"
        if array.ndim != 4:
            raise ValueError(f"{name} has {array.ndim} dimensions")
        state[f"synthesis.{place}.noise_const"] = torch.from_numpy(array[0, 0].copy())
    architecture = "orig" if stages else net.argument("architecture", "skip")
    blocks = [2**i for i in range(2, round(log2(resolution)) + 1)]
    for r in blocks:
        for part in ("", ".conv0", ".conv1", ".skip"):
            if (part != ".skip" or architecture == "resnet") and (r > 4 or part in ("", ".conv1")):
                state[f"synthesis.b{r}{part}.resample_filter"] = blur(net)
    config = {
        "z_dim": net.argument("latent_size", 512),
        "c_dim": net.argument("label_size", 0),
        "w_dim": net.argument("dlatent_size", 512),
        "img_resolution": resolution,
        "img_channels": net.argument("num_channels", 3),
        "mapping_kwargs": {
            "num_layers": net.argument("mapping_layers", 8),
            "embed_features": net.given.get("label_fmaps"),
            "layer_features": net.given.get("mapping_fmaps"),
            "lr_multiplier": net.argument("mapping_lrmul", 0.01),
            "w_avg_beta": net.argument("dlatent_avg_beta", 0.995),
        },
        "synthesis_kwargs": {
            "channel_base": 2 * net.argument("fmap_base", 16384),
            "channel_max": net.argument("fmap_max", 512),
            "conv_clamp": net.given.get("conv_clamp"),
            "architecture": architecture,
            "use_noise": net.argument("use_noise", True),
        },
    }
    return Published("stylegan2/G", config, state)


def discriminator(net: Recorded) -> Published:
    """D in the names and arguments of StyleGAN2-ADA."""
    resolution = whole(net, "resolution", 1024)
    stages = by_stage(net, "", "FromRGB", resolution)
    state = converted(net, OF_D)
    for name in list(state):
        layer, _, part = name.rpartition(".")
        if part == "weight" and state[name].ndim == 4:
            state[f"{layer}.resample_filter"] = blur(net)
    for r in (2**i for i in range(3, round(log2(resolution)) + 1)):
        state[f"b{r}.resample_filter"] = blur(net)
    depth = net.argument("mapping_layers", 0)
    config = {
        "c_dim": net.argument("label_size", 0),
        "img_resolution": resolution,
        "img_channels": net.argument("num_channels", 3),
        "architecture": "orig" if stages else net.argument("architecture", "resnet"),
        "channel_base": 2 * net.argument("fmap_base", 16384),
        "channel_max": net.argument("fmap_max", 512),
        "conv_clamp": net.given.get("conv_clamp"),
        "mapping_kwargs": {
            "num_layers": depth,
            "layer_features": net.given.get("mapping_fmaps") if depth else None,
            "lr_multiplier": net.argument("mapping_lrmul", 0.1),
        },
        "epilogue_kwargs": {
            "mbstd_group_size": net.argument("mbstd_group_size", 4),
            "mbstd_num_channels": net.argument("mbstd_num_features", 1),
        },
    }
    return Published("stylegan2/D", config, state)


def whole(net: Recorded, name: str, default: int) -> int:
    value = net.argument(name, default)
    if not 4 <= value <= 1 << 20 or value & (value - 1):
        raise ValueError(f"its {name} is {str(value)[:20]}, and a power of two from 4 on was expected")
    return value


def blur(net: Recorded) -> torch.Tensor:
    """The filter of resampling, which TensorFlow computes and PyTorch stores: outer(k, k) / (sum k)^2."""
    kernel = net.argument("resample_kernel", [1, 3, 3, 1])
    if kernel != [1, 3, 3, 1]:
        raise ValueError("its resample_kernel is another one than [1, 3, 3, 1]")
    k = torch.tensor(kernel, dtype=torch.float32)
    return torch.outer(k, k) / k.sum().square()
