"""The interface of an architecture: settings with a `build` that returns a plain module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field
from torch import nn

from equipoise.core.latents import Normal, Prior
from equipoise.core.types import ImageSpec, component
from equipoise.nn.sizes import ABLE

from .head import Head, HeadFactory

__all__ = ["DiscriminatorConfig", "GeneratorConfig", "Pair", "require_shape"]


@component
class GeneratorConfig(ABC):
    """Settings of a generator.

    z_dim: length of z.
    prior: the distribution of z.
    narrowest: the smallest width at which every layer trains. Below it, all ReLUs of a layer may be dead at first.
    styled: it makes images from styles, `StyledGenerator`: G has `mapping`, `synthesis`, `styles` and `num_ws`.
    rectangles: it reads `spec.shape`, and so makes images whose height and width differ. A run refuses rectangles for
        networks that do not declare it.
    """

    narrowest: ClassVar[int] = 2
    rectangles: ClassVar[bool] = False
    styled: ClassVar[bool] = False
    gone: ClassVar[dict[str, str]] = {
        "conditional": "G reads the class if D asks for it, as head.conditioning=Projection"
    }

    z_dim: int = Field(default=128, ge=1)
    prior: Prior = Field(default=Normal(), kw_only=True)

    @abstractmethod
    def build(self, spec: ImageSpec) -> nn.Module:
        """forward(z (N, z_dim), y (N,) or None) -> x (N, C, H, W) in [-1, 1], weights initialised.

        spec: the images, and the classes that G reads. With `spec.num_classes` 0, G is unconditional and ignores y.
            D's head decides whether G reads the classes of the data: `Conditioning.generator_spec`.

        Raises:
            ValueError: for data the architecture is not defined for.
        """


class DiscriminatorConfig(ABC):
    """Settings of a discriminator. `narrowest` and `rectangles` as in `GeneratorConfig`."""

    narrowest: ClassVar[int] = 2
    rectangles: ClassVar[bool] = False

    @abstractmethod
    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        """forward(x (N, C, H, W), y (N,) or None) -> Logits, or a list of Logits, whose losses add up.

        Calls `head(F)` once per body; `head(F, positions)` if the features are a flattened map.

        Raises:
            ValueError: for data the architecture is not defined for.
        """


def require_shape(spec: ImageSpec, *networks: GeneratorConfig | DiscriminatorConfig) -> None:
    """Raise ValueError for rectangles and a network that does not declare `rectangles`."""
    for network in networks:
        if not spec.square and not network.rectangles:
            raise ValueError(
                f"{type(network).__name__} is for square images, and the data has shape={spec.shape} (height, width): "
                f"give data.resolution in place of data.shape, or take {ABLE}. A network of your own that reads "
                "spec.shape declares rectangles: ClassVar[bool] = True"
            )


PLAIN = Head()


@dataclass(frozen=True)
class Pair:
    """Two networks that a paper trains together, with D's head and the spec of their images.

    The file of an architecture lists its pairs by name in `PUBLISHED`; a name ends with the size. `equipoise models`
    and the documentation show all pairs.
    """

    paper: str
    spec: ImageSpec
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    head: Head = PLAIN
