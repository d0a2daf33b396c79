"""Augmentations: random transforms of all images on their way to D."""

from .ada import ADA
from .base import Augment, Augmentation, Means, NoAugment
from .blur import FadingBlur
from .chain import Chain
from .diffaugment import DiffAugment
from .noise import InstanceNoise

__all__ = ["ADA", "Augment", "Augmentation", "Chain", "DiffAugment", "FadingBlur", "InstanceNoise", "Means", "NoAugment"]
