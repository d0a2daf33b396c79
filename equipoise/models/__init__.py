"""Architectures: pixels to features. None of them knows a loss, a head or a normaliser."""

from .base import DiscriminatorConfig, GeneratorConfig
from .digits import SANDigitsDiscriminator, SANDigitsGenerator, TinyDigitsDiscriminator, TinyDigitsGenerator

__all__ = [
    "DiscriminatorConfig",
    "GeneratorConfig",
    "SANDigitsDiscriminator",
    "SANDigitsGenerator",
    "TinyDigitsDiscriminator",
    "TinyDigitsGenerator",
]
