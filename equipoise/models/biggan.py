"""BigGAN: SAGAN's networks with a shared class embedding, z in every block, and orthogonal weights."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import Discriminator, LinearConditionalBatchNorm
from equipoise.nn.init import init_orthogonal
from equipoise.nn.norms import BATCH_NORMS
from equipoise.nn.residual import ResidualGenerator, attended, down_body, size
from equipoise.nn.sizes import split_z

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .conditioning import Projection
from .head import Head, HeadFactory

__all__ = ["BigGANDiscriminator", "BigGANGenerator"]


@component
class BigGANGenerator(GeneratorConfig):
    """A chunk of z -> 16w at 4x4, then residual blocks up to w at 128x128, each with its own chunk of z and with e(y).

    Brock et al. 2019, app. B: SAGAN's blocks, with `LinearConditionalBatchNorm` of [e(y), chunk] as norms. All norms
    share one embedding e(y). Channels by size as in `nn.residual.GENERATOR`; sizes 16, 20, 24, 28, 32, 40, ..., 128,
    ..., 256, ..., 512, ..., 896. Orthogonal weights, biases 0. The paper spectrally normalises all weights but the
    embedding's: g_normalizer=SpectralNorm(skip=("embed",)).

    z_dim: 120, 140 and 160 in the paper for 128, 256 and 512 pixels: 20 for the linear layer and for each block. The
        remainder of a split goes to the linear layer.
    width: w.
    skip_z: False gives z to the linear layer alone.
    embed: length of e(y). An unconditional generator has none.
    attention: size in pixels. `SelfAttention` follows the block that ends with the largest map of at most this size,
        smaller than the image; 0: none. `BigGANDiscriminator` chooses the same map for the same value.
    norm: "sync_batch" for statistics over the images of all processes, as in the paper.
    checkpoint: compute the activations of each block twice instead of storing them (`recomputed`).

    Raises:
        ValueError: when built, for any other size, attention below the smallest map, or z too short to split.
    """

    rectangles: ClassVar[bool] = True

    z_dim: int = Field(default=120, ge=1)
    width: int = Field(default=96, ge=1)
    skip_z: bool = True
    embed: int = Field(default=128, ge=1)
    attention: int = Field(default=64, ge=0)
    norm: Literal["batch", "sync_batch"] = "batch"
    checkpoint: bool = False

    def build(self, spec: ImageSpec) -> nn.Module:
        name = type(self).__name__
        blocks = size(spec, name).doublings
        batch_norm = BATCH_NORMS[self.norm]
        chunks = split_z(self.z_dim, blocks) if self.skip_z else [self.z_dim, *[0] * blocks]
        condition = chunks[-1] + (self.embed if spec.num_classes else 0)

        def norm(features: int) -> nn.Module:
            if condition == 0:
                return batch_norm(features)
            return LinearConditionalBatchNorm(features, condition, batch_norm=batch_norm)

        G = ResidualGenerator(
            spec,
            self.width,
            chunks=chunks,
            norm=norm,
            last_norm=batch_norm,
            embed=nn.Embedding(spec.num_classes, self.embed) if spec.num_classes else None,
            attention=attended(spec, self.attention, name),
            checkpoint=self.checkpoint,
        )
        init_orthogonal(G)
        return G


@component
class BigGANDiscriminator(DiscriminatorConfig):
    """Residual blocks C -> w -> 2w -> 4w -> 8w -> 16w -> 16w from 128x128 to 4x4, self-attention at 64x64, sum, head.

    Brock et al. 2019, app. B: SAGAN's discriminator with orthogonal weights, attention at 64x64, and w = 96. In the
    paper all weights, the head's too, are spectrally normalised, and the class enters by projection. Sizes and fields
    as in `SAGANDiscriminator`.

    join: as in `ResNetDiscriminator`; e(y) starts orthogonal too.
    width: w.
    attention: size in pixels, as in `BigGANGenerator`; 0: none.
    checkpoint: compute the activations of each block twice instead of storing them (`recomputed`).
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=96, ge=1)
    attention: int = Field(default=64, ge=0)
    checkpoint: bool = False
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        body, features = down_body(
            spec, self.width, self.attention, self.join, checkpoint=self.checkpoint, name=type(self).__name__
        )
        init_orthogonal(body)
        return Discriminator(body, head(features, joined=self.join > 0))


PUBLISHED = {
    "biggan_32": Pair(
        "Brock et al. 2019",
        ImageSpec(32, num_classes=10),
        BigGANGenerator(z_dim=128, width=64, attention=0),
        BigGANDiscriminator(width=64, attention=0),
        Head(Projection()),
    )
} | {
    f"biggan_{size}": Pair(
        "Brock et al. 2019",
        ImageSpec(size, num_classes=1000),
        BigGANGenerator(z_dim=z_dim),
        BigGANDiscriminator(),
        Head(Projection()),
    )
    for size, z_dim in ((64, 120), (128, 120), (256, 140), (512, 160))
}
