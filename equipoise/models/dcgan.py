"""DCGAN for square images of many sizes, with the layers of `norms` and `minibatch` as settings."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import NONE_IS_A_WORD, ImageSpec, component
from equipoise.nn import (
    ConditionalBatchNorm,
    Discriminator,
    LinearConditionalBatchNorm,
    MinibatchDiscrimination,
    MinibatchStd,
    OneHot,
    WithReference,
    conditions,
    labels,
)
from equipoise.nn.init import initialise
from equipoise.nn.norms import BATCH_NORMS, CONDITIONAL, Norm, make_norm
from equipoise.nn.sizes import channels, split_z, start

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["DCGANDiscriminator", "DCGANGenerator"]


REFERENCE = 64
"""Rows of z in the reference batch of a generator with virtual batch norm."""


# ---- generator -------------------------------------------------------------------------------------------


@component
class DCGANGenerator(GeneratorConfig):
    """z -> 8w at 4x4, then transposed convolutions k4 s2 p1 -> 4w -> 2w -> w -> C at 64x64, norm and ReLU, tanh.

    Radford et al. 2016, with 4x4 kernels in place of 5x5. The smallest map is 4x4 to 7x7, and each layer doubles it:
    resolutions 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, ... The last hidden layer has w channels. Each layer before
    has twice the channels, up to 8w. Convolutions N(0, 0.02²), gains N(1, 0.02²), biases 0; no bias before a norm.

    width: w; 128 in the paper.
    class_input: how a conditional generator reads the class.
        "concat": one-hot, appended to z (Mirza & Osindero 2014);
        "batch_norm": `ConditionalBatchNorm` in place of every batch norm;
        "shared": `LinearConditionalBatchNorm` in place of every batch norm, with one embedding e(y) that all norms
        share (Brock et al. 2019, sec. 3.1).
    norm: after each layer but the last: a kind of `norm`, or "virtual" (Salimans et al. 2016). The reference is then
        64 rows of z, drawn when G is built, with classes spread evenly if G is conditional.
    skip_z: z reaches every layer, not only the first (Brock et al. 2019, sec. 3.1). z is split into chunks of equal
        length: one for the first layer, which also gets the remainder, and one for each norm. Each norm is then
        `LinearConditionalBatchNorm` of its chunk, with e(y) beside it if class_input="shared".
    embed: length of e(y), for class_input="shared". e(y) starts from N(0, 1), the distribution of z.

    Raises:
        ValueError: if class_input needs the class and G is unconditional, when built; for skip_z with
            class_input="batch_norm"; if a norm must be conditional and is not a batch norm.
    """

    rectangles: ClassVar[bool] = True

    z_dim: int = Field(default=100, ge=1)
    width: int = Field(default=64, ge=1)
    class_input: Literal["concat", "batch_norm", "shared"] = "concat"
    norm: Norm = "batch"
    skip_z: bool = False
    embed: int = Field(default=128, ge=1)

    def __post_init__(self) -> None:
        """Raises ValueError for `class_input=batch_norm` with `skip_z=true`: a table of gains cannot read z. Set
        `class_input=shared`, which takes both.

        Raises ValueError for `class_input` or `skip_z` that sets gains, without batch norm: no layer
        would have these gains. Set `norm=batch` or `norm=sync_batch`.
        """
        if self.class_input == "batch_norm" and self.skip_z:
            raise ValueError(
                "class_input=batch_norm looks the gains of a class up in a table, which cannot read z, and "
                "skip_z=True makes them depend on z. Set class_input=shared, which takes both, or skip_z=false."
            )
        conditional = self.class_input if self.class_input != "concat" else None
        if self.norm not in BATCH_NORMS and (conditional or self.skip_z):
            setting, depend = (f"class_input={conditional}", "the class") if conditional else ("skip_z=True", "z")
            raise ValueError(
                f"{setting} makes every norm a batch norm whose gains depend on {depend}, so norm={self.norm} would "
                "apply nowhere. Set norm=batch or norm=sync_batch, or class_input=concat and skip_z=false."
            )

    def build(self, spec: ImageSpec) -> nn.Module:
        self._require(conditional=spec.num_classes > 0)
        return ConvGenerator(self, spec)

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `class_input=batch_norm` or `shared` where G reads no class: its gains have none to
        follow. Set `head.conditioning=Projection`, or `class_input=concat`.
        """
        self._require(conditional=cfg.game.tells_labels or cfg.head.conditioning.conditional_generator)

    def _require(self, *, conditional: bool) -> None:
        if self.class_input != "concat" and not conditional:
            raise ValueError(
                f"class_input={self.class_input} gives every class its own gains, and this generator reads no class: "
                "D's conditioning does not ask for it. Set head.conditioning=Projection, or class_input=concat, which "
                "has no effect here."
            )


class ConvGenerator(nn.Module):
    def __init__(self, cfg: DCGANGenerator, spec: ImageSpec):
        super().__init__()
        begin = start(spec, type(cfg).__name__)
        concat, shared = (spec.num_classes > 0 and cfg.class_input == way for way in ("concat", "shared"))
        self.onehot = OneHot(spec.num_classes) if concat else None
        self.embed = nn.Embedding(spec.num_classes, cfg.embed) if shared else None
        plain = [cfg.z_dim, *[0] * begin.doublings]
        self.chunks = split_z(cfg.z_dim, begin.doublings) if cfg.skip_z else plain  # of z's numbers
        inputs = self.chunks[0] + (spec.num_classes if concat else 0)
        condition = self.chunks[-1] + (cfg.embed if shared else 0)
        widths = channels(cfg.width, begin.doublings)[::-1]
        bias = cfg.norm == "none"  # a norm has its own

        def norm_and_relu(features: int) -> list[nn.Module]:
            if cfg.class_input == "batch_norm":
                layer: nn.Module = ConditionalBatchNorm(features, spec.num_classes, batch_norm=BATCH_NORMS[cfg.norm])
            elif condition:
                layer = LinearConditionalBatchNorm(features, condition, batch_norm=BATCH_NORMS[cfg.norm])
            else:
                layer = make_norm(cfg.norm, features)
            return [layer, nn.ReLU(inplace=True)]

        layers: list[nn.Module] = [
            nn.Unflatten(1, (inputs, 1, 1)),
            nn.ConvTranspose2d(inputs, widths[0], begin.map, bias=bias),  # the smallest map: projects and reshapes
            *norm_and_relu(widths[0]),
        ]
        for c_in, c_out in pairwise(widths):
            layers.append(nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=bias))  # twice the size
            layers += norm_and_relu(c_out)
        layers += [nn.ConvTranspose2d(cfg.width, spec.channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialise(self)
        if cfg.norm == "virtual":
            classes = torch.arange(REFERENCE) * spec.num_classes // REFERENCE
            reference = self.inputs(cfg.prior.draw(REFERENCE, cfg.z_dim, generator=torch.default_generator), classes)
            self.layers = nn.Sequential(WithReference(self.layers, reference))

    def inputs(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Inputs of the first layer: (N, first chunk of z), or with the class (N, first chunk + num_classes)."""
        return z if self.onehot is None else torch.cat([z, self.onehot(labels(y))], dim=1)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *others = z.split(self.chunks, dim=1)
        h, read = self.inputs(first, y), conditions(self.embed, others, y)
        for layer in self.layers:
            h = layer(h, next(read)) if isinstance(layer, CONDITIONAL) else layer(h)
        return h


# ---- discriminator ---------------------------------------------------------------------------------------


@component
class DCGANDiscriminator(DiscriminatorConfig):
    """Convolutions k4 s2 p1, C -> w -> 2w -> 4w -> 8w at 4x4 from 64x64, norm and LeakyReLU 0.2, then the head.

    Radford et al. 2016, with 4x4 kernels in place of 5x5. The mirror image of `DCGANGenerator`, for the same
    resolutions: the map halves down to 4x4 to 7x7, and the channels double up to 8w. The head reads all values of the
    last map, so there is one logit per image. Initialised like the generator; use it with Head(init_std=0.02).

    width: w; 128 in the paper.
    norm: after each convolution but the first, a kind of `norm`. Every kind but "none" undoes the bound of spectral
        norm. "batch" mixes images, which breaks per-image penalties.
    minibatch: lets D compare the images of a batch. "discrimination": `MinibatchDiscrimination` on the features of the
        head. "std": `MinibatchStd` on the last map; the batch must be a multiple of 4.

    Raises:
        ValueError: for norm="virtual", whose reference would have to be real images.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    norm: Norm = "batch"
    minibatch: Annotated[Literal["none", "discrimination", "std"], NONE_IS_A_WORD] = "none"

    def __post_init__(self) -> None:
        """Raises ValueError for `norm=virtual`: it needs a reference batch of real images, and an architecture is built
        without data. Set `norm` to `layer`, `instance` or `group`.
        """
        if self.norm == "virtual":
            raise ValueError(
                "norm=virtual needs a reference batch of real images in D, and an architecture is built without data. "
                "Use norm=layer, norm=instance or norm=group, which do not mix images either; in a loop of your own, "
                "use WithReference(body, images)."
            )

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        begin = start(spec, type(self).__name__)
        widths = channels(self.width, begin.doublings)
        layers: list[nn.Module] = [
            nn.Conv2d(spec.channels, self.width, 4, stride=2, padding=1),  # half the size
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for c_in, c_out in pairwise(widths):
            layers += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=self.norm == "none"),  # a norm has its own
                make_norm(self.norm, c_out),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        features = widths[-1]
        if self.minibatch == "std":
            layers.append(MinibatchStd())
            features += 1
        layers.append(nn.Flatten())
        positions = begin.positions
        features *= positions
        if self.minibatch == "discrimination":
            compare = MinibatchDiscrimination(features)
            layers.append(compare)
            features, positions = features + compare.kernels, 1  # the new features have no position
        body = nn.Sequential(*layers)
        initialise(body)
        return Discriminator(body, head(features, positions))


PUBLISHED = {
    "dcgan_64": Pair("Radford et al. 2016", ImageSpec(64), DCGANGenerator(width=128), DCGANDiscriminator(width=128))
}
