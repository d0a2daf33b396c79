"""Multilayer perceptrons, for images of any size."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component
from equipoise.nn import Discriminator, OneHot, labels

from .base import DiscriminatorConfig, GeneratorConfig, Pair
from .head import HeadFactory

__all__ = ["MLPDiscriminator", "MLPGenerator"]


def hidden(features: int, width: int, depth: int) -> list[nn.Module]:
    """`depth` times a linear layer and ReLU: features -> width -> ... -> width."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True)]
        features = width
    return layers


@component
class MLPGenerator(GeneratorConfig):
    """z -> 512 -> 512 -> 512 -> 512 -> C·H·W with ReLU; images of any size.

    The network without batch norm or convolutions that WGAN still trains (Arjovsky et al. 2017, sec. 4). Conditional:
    the class, one-hot, is appended to z. PyTorch's initialisation. Different here: the authors' code has 3 hidden
    layers and no tanh, as in ``MLPGenerator(depth=3, output="linear")``.

    width: units of a hidden layer.  depth: number of hidden layers.
    output: "tanh" for images in [-1, 1], "linear" for points that may lie anywhere.
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 16
    z_dim: int = Field(default=100, ge=1)
    width: int = Field(default=512, ge=1)
    depth: int = Field(default=4, ge=1)
    output: Literal["tanh", "linear"] = "tanh"

    def build(self, spec: ImageSpec) -> nn.Module:
        return MLP(self, spec)


class MLP(nn.Module):
    def __init__(self, cfg: MLPGenerator, spec: ImageSpec):
        super().__init__()
        self.onehot = OneHot(spec.num_classes) if spec.num_classes else None
        self.layers = nn.Sequential(
            *hidden(cfg.z_dim + spec.num_classes, cfg.width, cfg.depth),
            nn.Linear(cfg.width, math.prod(spec.image)),
            nn.Tanh() if cfg.output == "tanh" else nn.Identity(),
            nn.Unflatten(1, spec.image),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.onehot is not None:
            z = torch.cat([z, self.onehot(labels(y))], dim=1)
        x: Tensor = self.layers(z)
        return x


@component
class MLPDiscriminator(DiscriminatorConfig):
    """C·H·W -> 512 -> 512 -> 512 -> 512 with ReLU, then the head; images of any size (Arjovsky et al. 2017, sec. 4).

    PyTorch's initialisation. Different here: the authors' code has 3 hidden layers, ``MLPDiscriminator(depth=3)``.

    width: units of a hidden layer.  depth: number of hidden layers.
    """

    rectangles: ClassVar[bool] = True
    narrowest: ClassVar[int] = 16
    width: int = Field(default=512, ge=1)
    depth: int = Field(default=4, ge=1)

    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        pixels = math.prod(spec.image)
        return Discriminator(nn.Sequential(nn.Flatten(), *hidden(pixels, self.width, self.depth)), head(self.width))


PUBLISHED = {"mlp_28": Pair("Arjovsky et al. 2017", ImageSpec(28, 1), MLPGenerator(), MLPDiscriminator())}
