"""SN-GAN's standard CNN, for square images of many sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import ConditionalBatchNorm, Discriminator, init_normal
from equipoise.nn.norms import BATCH_NORMS
from equipoise.nn.sizes import channels, start

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["SNGANDiscriminator", "SNGANGenerator"]


@component
class SNGANGenerator(GeneratorConfig):
    """Linear z -> 8w at 4x4, transposed convolutions k4 s2 -> 4w -> 2w -> w at 32x32, batch norm, ReLU; 3x3 -> C, tanh.

    Miyato et al. 2018, table 3a, for 32x32 and, from 6x6, for 48x48. Here the smallest map is 4x4 to 7x7 and each
    transposed convolution doubles it: resolutions 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, ... Batch norm and
    ReLU follow the linear layer too, as in the authors' code. Weights N(0, 0.02²), gains N(1, 0.02²), biases 0; no bias
    before a norm. Conditional: `ConditionalBatchNorm` in place of every batch norm. Its gains start at 1 and its
    biases at 0 for all classes.

    width: w; the channels double towards the smallest map, up to 8w.
    norm: "batch", or "sync_batch" for statistics over all processes.
    """

    rectangles: ClassVar[bool] = True

    width: int = Field(default=64, ge=1)
    norm: Literal["batch", "sync_batch"] = "batch"

    def build(self, spec: ImageSpec) -> nn.Module:
        return StandardCNN(self, spec)


class StandardCNN(nn.Module):
    def __init__(self, cfg: SNGANGenerator, spec: ImageSpec):
        super().__init__()
        begin = start(spec, type(cfg).__name__)
        widths = channels(cfg.width, begin.doublings + 1)[::-1]
        batch_norm = BATCH_NORMS[cfg.norm]

        def norm_and_relu(features: int) -> list[nn.Module]:
            if spec.num_classes:
                norm: nn.Module = ConditionalBatchNorm(features, spec.num_classes, batch_norm=batch_norm)
            else:
                norm = batch_norm(features)
            return [norm, nn.ReLU(inplace=True)]

        linear = nn.Linear(cfg.z_dim, widths[0] * begin.positions, bias=False)
        nn.init.normal_(linear.weight, 0.0, 0.02)
        layers: list[nn.Module] = [
            linear,
            nn.Unflatten(1, (widths[0], *begin.map)),
            *norm_and_relu(widths[0]),
        ]
        for c_in, c_out in pairwise(widths):
            layers.append(nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False))  # twice the size
            layers += norm_and_relu(c_out)
        layers += [nn.Conv2d(cfg.width, spec.channels, 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        h = z
        for layer in self.layers:
            h = layer(h, y) if isinstance(layer, ConditionalBatchNorm) else layer(h)
        return h


@component
class SNGANDiscriminator(DiscriminatorConfig):
    """3x3 C -> w, then three times k4 s2 to the same channels and 3x3 to twice the channels, to 8w at 4x4; then head.

    From 32x32: 3x3 w, 4x4 w, 3x3 2w, 4x4 2w, 3x3 4w, 4x4 4w, 3x3 8w, each with LeakyReLU 0.1 (Miyato et al. 2018,
    table 3b; use it with d_normalizer=SpectralNorm() and Head(init_std=0.02)). Same resolutions and initialisation as
    `SNGANGenerator`. The head reads all values of the last map.

    width: w; at most 8w channels.
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 16
    width: int = Field(default=64, ge=1)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        begin = start(spec, type(self).__name__)
        widths = channels(self.width, begin.doublings + 1)

        def layer(c_in: int, c_out: int, kernel: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(c_in, c_out, kernel, stride, padding=1), nn.LeakyReLU(0.1, inplace=True)]

        layers = layer(spec.channels, self.width, 3, 1)
        for c_in, c_out in pairwise(widths):
            layers += layer(c_in, c_in, 4, 2)  # half the size
            layers += layer(c_in, c_out, 3, 1)
        body = nn.Sequential(*layers, nn.Flatten())
        init_normal(body)
        return Discriminator(body, head(widths[-1] * begin.positions, begin.positions))


PUBLISHED = {
    f"sngan_cnn_{size}": Pair("Miyato et al. 2018", ImageSpec(size), SNGANGenerator(), SNGANDiscriminator())
    for size in (32, 48)
}
