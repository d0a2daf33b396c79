"""What an augmentation is to the loop: a module that every image passes on its way to D."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ..types import component

__all__ = ["Augment", "Augmentation", "NoAugment"]


class Augmentation(nn.Module, ABC):
    """forward(x (N, C, H, W)) -> same shape, differentiable. State lives in buffers."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def adapt(self, sign_real: Tensor, num_images: int) -> None:
        """Account for `num_images` real images whose logits had mean sign `sign_real` (), over all processes."""


class Augment(ABC):
    """Settings of an augmentation."""

    @abstractmethod
    def build(self) -> Augmentation: ...


class Identity(Augmentation):
    """x -> x."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adapt(self, sign_real: Tensor, num_images: int) -> None:
        pass


@component
class NoAugment(Augment):
    """D sees images as they are."""

    def build(self) -> Augmentation:
        return Identity()
