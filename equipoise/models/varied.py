"""The architectures on which WGAN-GP was tested: a DCGAN of any nonlinearity, depth, norm and width."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import (
    Discriminator,
    Nonlinearity,
    NormKind,
    OneHot,
    init_normal,
    labels,
    nonlinearity,
)
from equipoise.nn.norms import NormOfD, NormOfG, make_norm
from equipoise.nn.sizes import channels, start

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["VariedDiscriminator", "VariedGenerator"]


# ---- shared by both networks -----------------------------------------------------------------------------


def extra_layers(depth: int, maps: int, name: str) -> list[int]:
    """Number of extra layers on each hidden map, beyond a DCGAN's, smallest map first: as even as possible.

    depth: total number of layers with weights. A DCGAN has one for each of its `maps`, and one more.

    Raises:
        ValueError: for fewer layers than a DCGAN of this resolution has.
    """
    least = maps + 1
    if depth < least:
        raise ValueError(
            f"{name}(depth={depth}) has fewer layers than a DCGAN of this resolution, which needs {least} to get from "
            f"the image to its smallest map. Set depth={least} or more."
        )
    each, left = divmod(depth - least, maps)
    return [each + (i < left) for i in range(maps)]


def activated(features: int, norm: NormKind, kind: Nonlinearity) -> list[nn.Module]:
    """A norm and a nonlinearity after a layer: `outputs(features, kind)` channels -> `features`."""
    return [make_norm(norm, outputs(features, kind)), nonlinearity(kind)]


def outputs(features: int, kind: Nonlinearity) -> int:
    """The channels that a layer needs to have `features` after its nonlinearity."""
    return 2 * features if kind == "gated" else features


def same(features: int, norm: NormKind, kind: Nonlinearity) -> list[nn.Module]:
    """A 5x5 convolution that changes neither the size nor the number of channels."""
    convolution = nn.Conv2d(features, outputs(features, kind), 5, padding=2, bias=norm == "none")
    return [convolution, *activated(features, norm, kind)]


# ---- generator -------------------------------------------------------------------------------------------


@component
class VariedGenerator(GeneratorConfig):
    """Linear z -> 4w at 4x4, transposed convolutions k5 s2 -> 2w -> w -> C at 32x32; norm, nonlinearity; tanh.

    Any generator of WGAN-GP's random architectures (Gulrajani et al. 2017, table 1), and the DCGAN-based generators of
    its LSUN experiments (sec. 5.2 and the authors' code), for the resolutions of `DCGANGenerator`.

        baseline                              VariedGenerator()
        one of table 1                        VariedGenerator(nonlinearity="softplus", depth=12, norm="none", width=128)
        no norm, constant number of filters   VariedGenerator(norm="none", constant=True)
        no norm at all                        VariedGenerator(norm="none")
        gated units, tanh                     VariedGenerator(nonlinearity="gated"), ...(nonlinearity="tanh")

    Weights N(0, 0.02²), gains of norms N(1, 0.02²), biases 0; no bias before a norm. Conditional: the class, one-hot,
    is appended to z (Mirza & Osindero 2014).

    nonlinearity: after each hidden layer, see `activations.nonlinearity`. "gated" layers have twice the channels
        inside.
    depth: layers with weights, the linear layer included; 4, 8, 12 or 20 in the table. None: a DCGAN's, 4 at 32x32.
        The paper does not specify the extra layers. Here they are 5x5 convolutions that keep size and channels, spread
        evenly over the hidden maps, the smallest first.
    constant: w channels in each hidden map. False: each smaller map has twice the channels, up to 8w.
    norm: after each layer but the last: "batch", "sync_batch" for statistics over all processes, or "none".
    width: w.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    nonlinearity: Nonlinearity = "relu"
    depth: Annotated[int, Field(ge=1)] | None = None
    constant: bool = False
    norm: NormOfG = "batch"

    def build(self, spec: ImageSpec) -> nn.Module:
        return VariedUpNet(self, spec)


class VariedUpNet(nn.Module):
    def __init__(self, cfg: VariedGenerator, spec: ImageSpec):
        super().__init__()
        begin = start(spec, type(cfg).__name__)
        extra = extra_layers(cfg.depth or begin.doublings + 1, begin.doublings, type(cfg).__name__)
        widths = hidden_widths(cfg.width, begin.doublings, cfg.constant)[::-1]
        bias = cfg.norm == "none"
        self.onehot = OneHot(spec.num_classes) if spec.num_classes else None
        inputs = cfg.z_dim + spec.num_classes
        first = outputs(widths[0], cfg.nonlinearity)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (inputs, 1, 1)),
            nn.ConvTranspose2d(inputs, first, begin.map, bias=bias),  # the smallest map: a linear layer
            *activated(widths[0], cfg.norm, cfg.nonlinearity),
        ]
        for i, (c_in, c_out) in enumerate(pairwise([*widths, spec.channels])):
            for _ in range(extra[i]):
                layers += same(c_in, cfg.norm, cfg.nonlinearity)
            last = i == len(widths) - 1
            c = c_out if last else outputs(c_out, cfg.nonlinearity)
            layers.append(nn.ConvTranspose2d(c_in, c, 5, 2, padding=2, output_padding=1, bias=last or bias))  # twice
            layers += [nn.Tanh()] if last else activated(c_out, cfg.norm, cfg.nonlinearity)
        self.layers = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.onehot is not None:
            z = torch.cat([z, self.onehot(labels(y))], dim=1)
        x: Tensor = self.layers(z)
        return x


def hidden_widths(width: int, maps: int, constant: bool) -> list[int]:
    """The channels of the hidden maps, the largest first."""
    return [width] * maps if constant else channels(width, maps)


# ---- discriminator ---------------------------------------------------------------------------------------


@component
class VariedDiscriminator(DiscriminatorConfig):
    """Convolutions k5 s2, C -> w -> 2w -> 4w at 4x4 from 32x32, norm and nonlinearity, then the head.

    Any discriminator of WGAN-GP's random architectures (Gulrajani et al. 2017, table 1), and the DCGAN-based
    discriminators of its LSUN experiments (sec. 5.2). The mirror image of `VariedGenerator`, initialised like it; use
    it with Head(init_std=0.02). The head reads all values of the last map, and counts as a layer.

    nonlinearity, depth: as in `VariedGenerator`. The paper's DCGAN has "leaky_relu" here.
    norm: after each layer but the first: "layer" for a gradient penalty, "batch" for other losses, or "none".
    width: w.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    nonlinearity: Nonlinearity = "leaky_relu"
    depth: Annotated[int, Field(ge=1)] | None = None
    norm: NormOfD = "layer"

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        begin = start(spec, type(self).__name__)
        extra = extra_layers(self.depth or begin.doublings + 1, begin.doublings, type(self).__name__)[::-1]
        widths = hidden_widths(self.width, begin.doublings, constant=False)
        layers: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(pairwise([spec.channels, *widths])):
            norm: NormKind = "none" if i == 0 else self.norm
            c = outputs(c_out, self.nonlinearity)
            layers.append(nn.Conv2d(c_in, c, 5, stride=2, padding=2, bias=norm == "none"))  # half the size
            layers += activated(c_out, norm, self.nonlinearity)
            for _ in range(extra[i]):
                layers += same(c_out, self.norm, self.nonlinearity)
        body = nn.Sequential(*layers, nn.Flatten())
        init_normal(body)
        return Discriminator(body, head(widths[-1] * begin.positions, begin.positions))


PUBLISHED = {
    "wgan_gp_varied_32": Pair("Gulrajani et al. 2017", ImageSpec(32), VariedGenerator(), VariedDiscriminator())
}
