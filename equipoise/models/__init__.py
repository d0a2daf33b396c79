"""Architectures: pixels to features. None of them knows a loss, a head or a normaliser."""

from .base import DiscriminatorConfig, GeneratorConfig
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

__all__ = [
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
    "SANDigitsDiscriminator",
    "SANDigitsGenerator",
    "SyncBatchNorm",
    "TinyDigitsDiscriminator",
    "TinyDigitsGenerator",
    "VirtualBatchNorm",
    "WithReference",
    "norm",
]
