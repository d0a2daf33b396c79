"""Augmentations: random transforms of all images on their way to D."""

from .ada import ADA
from .base import Augment, Augmentation, Means, NoAugment
from .chain import Chain
from .diffaugment import DiffAugment
from .noise import InstanceNoise

__all__ = ["ADA", "Augment", "Augmentation", "Chain", "DiffAugment", "InstanceNoise", "Means", "NoAugment"]
