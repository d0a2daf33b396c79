"""Depthwise convolutions whose weights are not trained: their second derivative costs what the first does."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["fixed_convolution"]


class Sizes(NamedTuple):
    """Shapes of a convolution. channels, size: of its input, (height, width).  stride, padding: (of y, of x)."""

    channels: int
    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


def fixed_convolution(x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """``F.conv2d(x, weight, None, stride, padding, groups=C)`` with a gradient by x alone.

    x (N, C, H, W), weight (C · M, 1, k, l) -> (N, C · M, H', W'). A second derivative through `F.conv2d` also computes
    the gradient by the weight, one group after the other, whether or not it is asked for. Here the derivative is the
    transposed convolution, whose derivative is the convolution again.
    """
    height, width = x.shape[2:]
    out: Tensor = Convolution.apply(x, weight, Sizes(x.shape[1], (height, width), stride, padding))  # type: ignore[no-untyped-call]
    return out


class Convolution(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
        # Under autocast gradients are narrower than the weight.
        return F.conv2d(x, weight.to(x.dtype), stride=sizes.stride, padding=sizes.padding, groups=sizes.channels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, ctx.weight, ctx.sizes = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Transposed.apply(gradient, ctx.weight, ctx.sizes), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        out: Tensor = Convolution.apply(tangent, ctx.weight, ctx.sizes)  # type: ignore[no-untyped-call]
        return out


class Transposed(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, weight: Tensor, sizes: Sizes) -> Tensor:
        weight = weight.to(y.dtype)
        C, (k, l) = sizes.channels, weight.shape[2:]  # noqa: E741
        (s, t), (p, q) = sizes.stride, sizes.padding
        if (s, t) == (1, 1) and p < k and q < l:
            return F.conv2d(y, weight.reshape(C, -1, k, l).flip(2, 3), padding=(k - 1 - p, l - 1 - q), groups=C)
        rest = (sizes.size[0] + 2 * p - k) % s, (sizes.size[1] + 2 * q - l) % t  # that the strides left out
        narrow = y.device.type == "cpu" and y.dtype == torch.bfloat16
        # Strided in bfloat16, oneDNN took 10 times as long as in float32, conversions included.
        a, w = (y.float(), weight.float()) if narrow else (y, weight)
        return F.conv_transpose2d(a, w, stride=(s, t), padding=(p, q), output_padding=rest, groups=C).to(y.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        _, ctx.weight, ctx.sizes = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Convolution.apply(gradient, ctx.weight, ctx.sizes), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        out: Tensor = Transposed.apply(tangent, ctx.weight, ctx.sizes)  # type: ignore[no-untyped-call]
        return out
