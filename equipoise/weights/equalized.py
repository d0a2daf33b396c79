"""Equalised learning rate: the weights of every layer learn at the same speed relative to their size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from equipoise.core.types import component
from equipoise.nn import initial_std

from .matrices import SCALED
from .normalizers import M, Normalizer, chosen

__all__ = ["EqualizedLearningRate"]


@component
class EqualizedLearningRate(Normalizer):
    """W = c V on every weighted layer, V learned and c constant (Karras et al. 2018, sec. 4.1).

    c is the standard deviation of the distribution that the layer's initial weights are drawn from. In ProGAN's
    networks it is exactly He's constant gain / √inputs. The gain is √2, but 1 in layers that output images and in the
    head. Where the distribution is unknown (`initial_std`), c is the root mean square of the weights. A layer that
    starts at 0 keeps c = 1.

    So V starts with size 1 in all layers. An optimiser whose steps do not depend on the size of gradients, such as
    Adam, moves W by lr · c: the same relative step in every layer. Choose learning rates for weights of size 1, say
    1e-3. Biases stay as they are. Layers that are equalised already, such as `ScaledConv2d`, stay as they are too.

    skip: names or patterns of layers to leave alone.
    """

    skip: tuple[str, ...] = ()

    def __call__(self, net: M) -> M:
        """Raises ValueError if a pattern of `skip` matches no layer."""
        for layer in chosen(net, self, self.skip):
            if isinstance(layer, SCALED):
                continue
            assert isinstance(layer.weight, Tensor)
            parametrize.register_parametrization(layer, "weight", Scaled(layer.weight, initial_std(layer)))
        return net


class Scaled(nn.Module):
    """The parametrisation V -> c V. `right_inverse` is how a weight W becomes V when it is registered.

    std: c; None: the root mean square of `weight`.
    """

    c: Tensor

    def __init__(self, weight: Tensor, std: float | None):
        super().__init__()
        size = weight.detach().square().mean().sqrt() if std is None else weight.new_tensor(std)
        self.register_buffer("c", torch.where(size > 0, size, torch.ones_like(size)))

    def forward(self, v: Tensor) -> Tensor:
        return v * self.c

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / self.c
