"""Published pairs of networks at the sizes of their papers, as `equipoise models` lists them."""

from __future__ import annotations

from dataclasses import dataclass

from equipoise.core.types import ImageSpec

from .base import DiscriminatorConfig, GeneratorConfig
from .biggan import BigGANDiscriminator, BigGANGenerator
from .biggan_deep import BigGANDeepDiscriminator, BigGANDeepGenerator
from .bottleneck import BottleneckDiscriminator, BottleneckGenerator
from .conditioning import Hidden, Projection
from .dcgan import DCGANDiscriminator, DCGANGenerator
from .digits import SANDigitsDiscriminator, SANDigitsGenerator, TinyDigitsDiscriminator, TinyDigitsGenerator
from .head import Head
from .mlp import MLPDiscriminator, MLPGenerator
from .progan import ProGANDiscriminator, ProGANGenerator
from .resnet import ResNetCritic, ResNetDiscriminator, ResNetGenerator
from .sagan import SAGANDiscriminator, SAGANGenerator
from .sngan import SNGANDiscriminator, SNGANGenerator
from .varied import VariedDiscriminator, VariedGenerator

__all__ = ["ZOO", "Pair"]

DIGITS = ImageSpec(28, 1, 10)
PLAIN, PROJECTION, HIDDEN = Head(), Head(Projection()), Head(Hidden())


@dataclass(frozen=True)
class Pair:
    """Two networks that a paper trains together, with D's head and the images that they are for."""

    paper: str
    spec: ImageSpec
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    head: Head = PLAIN


def colour(resolution: int, num_classes: int = 0) -> ImageSpec:
    return ImageSpec(resolution, 3, num_classes)


def biggan(resolution: int, z_dim: int) -> Pair:
    return Pair(
        "Brock et al. 2019",
        colour(resolution, 1000),
        BigGANGenerator(z_dim=z_dim),
        BigGANDiscriminator(),
        PROJECTION,
    )


def biggan_deep(resolution: int) -> Pair:
    return Pair(
        "Brock et al. 2019",
        colour(resolution, 1000),
        BigGANDeepGenerator(),
        BigGANDeepDiscriminator(),
        PROJECTION,
    )


ZOO: dict[str, Pair] = {
    "mlp_28": Pair("Arjovsky et al. 2017", DIGITS, MLPGenerator(), MLPDiscriminator()),
    "dcgan_64": Pair("Radford et al. 2016", colour(64), DCGANGenerator(width=128), DCGANDiscriminator(width=128)),
    "sngan_digits": Pair("Miyato et al. 2018", DIGITS, TinyDigitsGenerator(), TinyDigitsDiscriminator()),
    "san_digits": Pair("Takida et al. 2024", DIGITS, SANDigitsGenerator(), SANDigitsDiscriminator(), Head(san=True)),
    "sngan_cnn_32": Pair("Miyato et al. 2018", colour(32), SNGANGenerator(), SNGANDiscriminator()),
    "sngan_cnn_48": Pair("Miyato et al. 2018", colour(48), SNGANGenerator(), SNGANDiscriminator()),
    "sngan_resnet_32": Pair(
        "Miyato et al. 2018",
        colour(32),
        ResNetGenerator(width=256, channels="constant"),
        ResNetDiscriminator(width=128, channels="constant"),
    ),
    "sngan_resnet_48": Pair("Miyato et al. 2018", colour(48), ResNetGenerator(), ResNetDiscriminator()),
    "sngan_resnet_64": Pair("Miyato et al. 2018", colour(64), ResNetGenerator(), ResNetDiscriminator()),
    "projection_128": Pair(
        "Miyato & Koyama 2018",
        colour(128, 1000),
        ResNetGenerator(),
        ResNetDiscriminator(),
        PROJECTION,
    ),
    "concat_128": Pair(
        "Miyato & Koyama 2018",
        colour(128, 1000),
        ResNetGenerator(),
        ResNetDiscriminator(join=3),
        HIDDEN,
    ),
    "wgan_gp_resnet_32": Pair(
        "Gulrajani et al. 2017",
        colour(32),
        ResNetGenerator(width=128, channels="constant"),
        ResNetDiscriminator(width=128, channels="constant", pool="mean"),
    ),
    "wgan_gp_resnet_64": Pair("Gulrajani et al. 2017", colour(64), ResNetGenerator(most=8), ResNetCritic()),
    "wgan_gp_varied_32": Pair("Gulrajani et al. 2017", colour(32), VariedGenerator(), VariedDiscriminator()),
    "wgan_gp_101_64": Pair("Gulrajani et al. 2017", colour(64), BottleneckGenerator(), BottleneckDiscriminator()),
    "sagan_128": Pair("Zhang et al. 2019", colour(128, 1000), SAGANGenerator(), SAGANDiscriminator(), PROJECTION),
    "biggan_32": Pair(
        "Brock et al. 2019",
        colour(32, 10),
        BigGANGenerator(z_dim=128, width=64, attention=0),
        BigGANDiscriminator(width=64, attention=0),
        PROJECTION,
    ),
    "biggan_64": biggan(64, 120),
    "biggan_128": biggan(128, 120),
    "biggan_256": biggan(256, 140),
    "biggan_512": biggan(512, 160),
    "biggan_deep_128": biggan_deep(128),
    "biggan_deep_256": biggan_deep(256),
    "biggan_deep_512": biggan_deep(512),
    "progan_128": Pair("Karras et al. 2018", colour(128), ProGANGenerator(), ProGANDiscriminator()),
    "progan_1024": Pair("Karras et al. 2018", colour(1024), ProGANGenerator(), ProGANDiscriminator()),
}
"""By name, which ends with the size."""
