"""Initial weights, as published."""

from __future__ import annotations

import math

from torch import nn

from .initial import normal_
from .norms import ConditionalBatchNorm, LinearConditionalBatchNorm, VirtualBatchNorm

__all__ = ["init_normal"]


def init_orthogonal(net: nn.Module) -> None:
    """Orthogonal weights for linear layers, convolutions and embeddings, biases 0 (Saxe et al. 2014).

    A weight is read as the matrix (out, the rest). Its rows, or its columns if they are fewer, become orthonormal.
    Weights on the meta device are left alone.
    """
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Embedding)):
            if not module.weight.is_meta:
                nn.init.orthogonal_(module.weight)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)


def initialise(net: nn.Module) -> None:
    """`init_normal`, and gains near 1 for the library's own norms: N(1, 0.02²), or 1 + V c with V from N(0, 0.02²)."""
    init_normal(net)
    for module in net.modules():
        if isinstance(module, (ConditionalBatchNorm, VirtualBatchNorm)):
            nn.init.normal_(module.gain, 1.0, 0.02)
        elif isinstance(module, LinearConditionalBatchNorm):
            for linear in (module.gain, module.bias):
                nn.init.normal_(linear.weight, 0.0, 0.02)


def init_normal(net: nn.Module, std: float = 0.02) -> None:
    """DCGAN's initialisation: convolutions N(0, std²), gains of norms N(1, std²), biases 0 (Radford et al. 2016).

    The norms are torch's norms of maps: batch, instance and group norm. Layer norm is a group norm of one group.
    Call it before a normaliser: initialising a parametrised weight does nothing.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            normal_(module, std)
        elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def he(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, inputs: int, gain: float = math.sqrt(2)) -> nn.Module:
    """Weights from N(0, gain² / inputs), biases 0 (He et al. 2015)."""
    normal_(layer, gain / math.sqrt(inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def glorot_(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, gain: float = 1.0) -> None:
    """Draw the weights of `layer` uniformly, in place, and set biases to 0 (Glorot & Bengio 2010, eq. 16)."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_xavier(net: nn.Module) -> None:
    """Weights of linear layers and convolutions from U(-a, a) with a² = 6 / (fan_in + fan_out), biases 0.

    Glorot & Bengio 2010.
    """
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
