"""What happens to images before D sees them."""

from .base import Augment, Augmentation, NoAugment

__all__ = ["Augment", "Augmentation", "NoAugment"]
