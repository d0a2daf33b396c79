"""Small pieces that several architectures share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["OneHot", "init_normal", "labels", "require_labels"]


class OneHot(nn.Module):
    """y (N,) -> (N, num_classes) float32, one 1 per row."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.num_classes).to(torch.float32)


def init_normal(net: nn.Module, std: float = 0.02) -> None:
    """DCGAN's initialisation: convolutions N(0, std²), gains of norms N(1, std²), biases 0 (Radford et al. 2016).

    The norms are torch's own of maps: batch, instance and group norm, which layer norm is one of.
    Call it before a normaliser: an initialisation of a parametrised weight does nothing.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def labels(y: Tensor | None) -> Tensor:
    """The labels of a conditional generator. Raises ValueError if it was called without."""
    if y is None:
        raise ValueError("this generator is conditioned on the class: call it with labels, G(z, y)")
    return y


def require_labels(name: str, num_classes: int) -> None:
    """Raises ValueError if a conditional generator meets data without labels."""
    if num_classes == 0:
        raise ValueError(
            f"{name}(conditional=True) needs labelled data and this data has no labels. "
            "Give labelled data, or go without (head.conditioning=none generator.conditional=false)."
        )
