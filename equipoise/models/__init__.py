"""Architectures, one paper per file: pixels to features. None of them knows a loss, a head or a normaliser."""

from equipoise.compute.recompute import recomputed
from equipoise.nn import (
    ConditionalBatchNorm,
    LinearConditionalBatchNorm,
    MinibatchDiscrimination,
    MinibatchStd,
    NormKind,
    PixelNorm,
    SelfAttention,
    SyncBatchNorm,
    VirtualBatchNorm,
    WithReference,
    norm,
)

from .base import DiscriminatorConfig, GeneratorConfig
from .biggan import BigGANDiscriminator, BigGANGenerator
from .biggan_deep import BigGANDeepDiscriminator, BigGANDeepGenerator
from .bottleneck import BottleneckDiscriminator, BottleneckGenerator
from .conditioning import (
    Auxiliary,
    Conditioning,
    Hidden,
    Input,
    MappedProjection,
    NoConditioning,
    PerClass,
    Projection,
    SemiSupervised,
)
from .dcgan import DCGANDiscriminator, DCGANGenerator
from .digits import SANDigitsDiscriminator, SANDigitsGenerator, TinyDigitsDiscriminator, TinyDigitsGenerator
from .head import Head, HeadFactory
from .mlp import MLPDiscriminator, MLPGenerator
from .progan import ProGANDiscriminator, ProGANGenerator
from .resnet import ResNetCritic, ResNetDiscriminator, ResNetGenerator
from .sagan import SAGANDiscriminator, SAGANGenerator
from .sngan import SNGANDiscriminator, SNGANGenerator
from .stylegan import StyleGAN1Discriminator, StyleGAN1Generator
from .stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from .stylegan3 import StyleGAN3Generator
from .varied import VariedDiscriminator, VariedGenerator

__all__ = [
    "Auxiliary",
    "BigGANDeepDiscriminator",
    "BigGANDeepGenerator",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "BottleneckDiscriminator",
    "BottleneckGenerator",
    "ConditionalBatchNorm",
    "Conditioning",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DiscriminatorConfig",
    "GeneratorConfig",
    "Head",
    "HeadFactory",
    "Hidden",
    "Input",
    "LinearConditionalBatchNorm",
    "MLPDiscriminator",
    "MLPGenerator",
    "MappedProjection",
    "MinibatchDiscrimination",
    "MinibatchStd",
    "NoConditioning",
    "NormKind",
    "PerClass",
    "PixelNorm",
    "ProGANDiscriminator",
    "ProGANGenerator",
    "Projection",
    "ResNetCritic",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SAGANDiscriminator",
    "SAGANGenerator",
    "SANDigitsDiscriminator",
    "SANDigitsGenerator",
    "SNGANDiscriminator",
    "SNGANGenerator",
    "SelfAttention",
    "SemiSupervised",
    "StyleGAN1Discriminator",
    "StyleGAN1Generator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "StyleGAN3Generator",
    "SyncBatchNorm",
    "TinyDigitsDiscriminator",
    "TinyDigitsGenerator",
    "VariedDiscriminator",
    "VariedGenerator",
    "VirtualBatchNorm",
    "WithReference",
    "norm",
    "recomputed",
]
