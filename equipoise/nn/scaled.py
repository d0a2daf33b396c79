"""Layers whose learning rate is equalised inside: weights of size 1, scaled by a constant whenever they are used."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ScaledConv2d", "ScaledEmbedding", "ScaledLinear", "lrelu_gain", "scaled_lrelu"]


class ScaledLinear(nn.Linear):
    """h (..., F) -> (gain · W) h + m · b, with gain = m / √F (Karras et al. 2018, sec. 4.1; 2019, app. C).

    W starts as N(0, 1 / m²), so gain · W starts as N(0, 1 / F) whatever m is. Adam moves W by its learning rate per
    step, and the layer by a multiple of m: a small m makes a slow layer. `effective_weight` reads gain · W.

    lr_multiplier: m.
    bias_init: first value of each element of b.
    """

    gain: float

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, lr_multiplier: float = 1.0, bias_init: float = 0.0
    ):
        self.lr_multiplier, self.bias_init = lr_multiplier, bias_init  # `nn.Linear` draws the weights at once
        super().__init__(inputs, outputs, bias=bias)
        self.gain = lr_multiplier / math.sqrt(inputs)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, 0.0, 1 / self.lr_multiplier)
        if self.bias is not None:
            nn.init.constant_(self.bias, self.bias_init)

    def forward(self, h: Tensor) -> Tensor:
        bias = self.bias if self.bias is None or self.lr_multiplier == 1 else self.bias * self.lr_multiplier
        return F.linear(h, self.weight * self.gain, bias)


class ScaledConv2d(nn.Conv2d):
    """`ScaledLinear` as a convolution: gain = m / √(C_in · k²), W (C_out, C_in, k, k), zero padding that keeps sizes.

    lr_multiplier: m.
    """

    gain: float

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, *, bias: bool = True, lr_multiplier: float = 1.0):
        self.lr_multiplier = lr_multiplier  # `nn.Conv2d` draws the weights at once
        super().__init__(c_in, c_out, kernel, padding=kernel // 2, bias=bias)
        self.gain = lr_multiplier / math.sqrt(c_in * kernel**2)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, 0.0, 1 / self.lr_multiplier)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, h: Tensor) -> Tensor:
        bias = self.bias if self.bias is None or self.lr_multiplier == 1 else self.bias * self.lr_multiplier
        return F.conv2d(h, self.weight * self.gain, bias, padding=self.padding)


class ScaledEmbedding(nn.Embedding):
    """y (N,) -> gain · V[y], with gain = 1 / √F and V (num, F) from N(0, 1): a row of `ScaledLinear` for each class."""

    gain: float

    def __init__(self, num: int, features: int):
        super().__init__(num, features)  # from N(0, 1)
        self.gain = 1 / math.sqrt(features)

    def forward(self, y: Tensor) -> Tensor:
        return super().forward(y) * self.gain


def scaled_lrelu(h: Tensor, *, gain: float = 1.0, clamp: float | None = None, scaled: bool = False) -> Tensor:
    """√2 · gain · lrelu(h), slope 0.2, then clamped to ±clamp · gain; the clamp is not multiplied by √2.

    √2 keeps the size of activations where weights have variance 1 / inputs (Karras et al. 2020, in the authors' code).

    scaled: h has been multiplied by `lrelu_gain(gain)` already, with a layer's weights, and may be overwritten: √2 ·
        gain · lrelu(h) = lrelu(√2 · gain · h).
    """
    if not scaled:
        h = h * lrelu_gain(gain)
    h = F.leaky_relu_(h, 0.2)
    return h if clamp is None else h.clamp(-clamp * gain, clamp * gain)


def lrelu_gain(gain: float) -> float:
    """√2 · gain, the factor of `scaled_lrelu`."""
    return math.sqrt(2) * gain
