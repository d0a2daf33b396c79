"""SAGAN: residual networks with self-attention. Blocks and channel tables, shared with BigGAN, are in `nn.residual`.

The blocks are SN-GAN's (Miyato et al. 2018, app. B), as wide as SAGAN uses them: both convolutions of a block of D have
the output's channels. A norm may read a condition, and a block may be recomputed in the backward.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import ConditionalBatchNorm, Discriminator
from equipoise.nn.init import init_xavier
from equipoise.nn.norms import BATCH_NORMS
from equipoise.nn.residual import ResidualGenerator, attended, down_body, size

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .conditioning import Projection
from .head import Head, HeadFactory

__all__ = ["SAGANDiscriminator", "SAGANGenerator"]


# ---- SAGAN -----------------------------------------------------------------------------------------------


@component
class SAGANGenerator(GeneratorConfig):
    """z -> 16w at 4x4, then residual blocks -> 16w -> 8w -> 4w -> 2w -> w at 128x128, with self-attention at 32x32.

    Zhang et al. 2019. Every norm of a block is a `ConditionalBatchNorm`, or plain batch norm if unconditional. Channels
    for other sizes are in `nn.residual.GENERATOR`: 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, ..., 128, ..., 896. Xavier
    uniform weights, as in the authors' code, which spectrally normalises all weights: g_normalizer=SpectralNorm().

    width: w.
    attention: size in pixels. `SelfAttention` follows the block that ends with the largest map of at most this size,
        smaller than the image; 0: none. `SAGANDiscriminator` chooses the same map for the same value.
    norm: "sync_batch" for statistics over the images of all processes.
    checkpoint: compute the activations of each block twice instead of storing them (`recomputed`).

    Raises:
        ValueError: when built, for any other size, or attention below the smallest map.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    attention: int = Field(default=32, ge=0)
    norm: Literal["batch", "sync_batch"] = "batch"
    checkpoint: bool = False

    def build(self, spec: ImageSpec) -> nn.Module:
        name = type(self).__name__
        doublings = size(spec, name).doublings
        batch_norm = BATCH_NORMS[self.norm]

        def norm(features: int) -> nn.Module:
            if spec.num_classes:
                return ConditionalBatchNorm(features, spec.num_classes, batch_norm=batch_norm)
            return batch_norm(features)

        G = ResidualGenerator(
            spec,
            self.width,
            chunks=[self.z_dim, *[0] * doublings],
            norm=norm,
            last_norm=batch_norm,
            embed=None,
            attention=attended(spec, self.attention, name),
            checkpoint=self.checkpoint,
        )
        init_xavier(G)
        return G


@component
class SAGANDiscriminator(DiscriminatorConfig):
    """Residual blocks C -> w -> 2w -> 4w -> 8w -> 16w -> 16w from 128x128 to 4x4, self-attention at 32x32, sum, head.

    Zhang et al. 2019. The head reads the sum of the last map over its positions, after a ReLU. Channels for other sizes
    are in `nn.residual.DISCRIMINATOR`; sizes, weights and fields as in `SAGANGenerator`. In the paper all weights, the
    head's too, are spectrally normalised, and the class enters by projection: d_normalizer=SpectralNorm(),
    Head(Projection()).

    join: as in `ResNetDiscriminator`.
    width: w.
    attention: size in pixels, as in `SAGANGenerator`; 0: none.
    checkpoint: compute the activations of each block twice instead of storing them (`recomputed`).
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    attention: int = Field(default=32, ge=0)
    checkpoint: bool = False
    join: int = Field(default=0, ge=0)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        body, features = down_body(
            spec, self.width, self.attention, self.join, checkpoint=self.checkpoint, name=type(self).__name__
        )
        init_xavier(body)
        return Discriminator(body, head(features, joined=self.join > 0))


PUBLISHED = {
    "sagan_128": Pair(
        "Zhang et al. 2019",
        ImageSpec(128, num_classes=1000),
        SAGANGenerator(),
        SAGANDiscriminator(),
        Head(Projection()),
    )
}
