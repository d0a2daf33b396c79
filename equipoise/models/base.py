"""What an architecture is to the library: settings with a `build` that returns a plain module."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import Field
from torch import nn

from equipoise.core.latents import Normal, Prior
from equipoise.core.types import ImageSpec, component

from .head import HeadFactory

__all__ = ["DiscriminatorConfig", "GeneratorConfig"]


@component
class GeneratorConfig(ABC):
    """Settings of a generator. Fields `z_dim` (length of z) and `conditional` (whether it reads labels).

    prior: the distribution of z.
    """

    z_dim: int = Field(default=128, ge=1)
    conditional: bool = False
    prior: Prior = Field(default=Normal(), kw_only=True)

    @abstractmethod
    def build(self, spec: ImageSpec) -> nn.Module:
        """forward(z (N, z_dim), y (N,) or None) -> x (N, C, H, W) in [-1, 1], weights initialised.

        Raises:
            ValueError: for data the architecture is not defined for.
        """


class DiscriminatorConfig(ABC):
    """Settings of a discriminator."""

    @abstractmethod
    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        """forward(x (N, C, H, W), y (N,) or None) -> Logits, or a list of them from several, whose losses add up.

        Calls `head(F)` once per body it creates; `head(F, positions)` if the features are a map that it flattened.

        Raises:
            ValueError: for data the architecture is not defined for.
        """
