"""Architectures: pixels to features. None of them knows a loss, a head or a normaliser."""

from .attention import SelfAttention
from .base import DiscriminatorConfig, GeneratorConfig
from .biggan import BigGANDiscriminator, BigGANGenerator
from .biggan_deep import BigGANDeepDiscriminator, BigGANDeepGenerator
from .bottleneck import BottleneckDiscriminator, BottleneckGenerator
from .dcgan import DCGANDiscriminator, DCGANGenerator
from .digits import SANDigitsDiscriminator, SANDigitsGenerator, TinyDigitsDiscriminator, TinyDigitsGenerator
from .minibatch import MinibatchDiscrimination, MinibatchStd
from .mlp import MLPDiscriminator, MLPGenerator
from .norms import (
    ConditionalBatchNorm,
    LinearConditionalBatchNorm,
    NormKind,
    SyncBatchNorm,
    VirtualBatchNorm,
    WithReference,
    norm,
)
from .progan import PixelNorm, ProGANDiscriminator, ProGANGenerator
from .recompute import recomputed
from .resnet import ResNetCritic, ResNetDiscriminator, ResNetGenerator
from .sagan import SAGANDiscriminator, SAGANGenerator
from .sngan import SNGANDiscriminator, SNGANGenerator
from .varied import VariedDiscriminator, VariedGenerator

__all__ = [
    "BigGANDeepDiscriminator",
    "BigGANDeepGenerator",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "BottleneckDiscriminator",
    "BottleneckGenerator",
    "ConditionalBatchNorm",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DiscriminatorConfig",
    "GeneratorConfig",
    "LinearConditionalBatchNorm",
    "MLPDiscriminator",
    "MLPGenerator",
    "MinibatchDiscrimination",
    "MinibatchStd",
    "NormKind",
    "PixelNorm",
    "ProGANDiscriminator",
    "ProGANGenerator",
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
