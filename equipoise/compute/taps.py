"""Convolutions whose weight gradient is one matrix product for each tap of the kernel.

For y = conv(x, w), the gradient of tap (i, j) is a matrix product. Its sum runs over images n and over the output
places (h, k) where the tap reads a pixel of x, not padding:

    dw[o, c, i, j] = Σ dy[n, o, h, k] x[n, c, h·s + i - p, k·s + j - p].

Small maps with many channels, such as a discriminator's last ones, gain twice: most products with padding are skipped,
and the matrices have the sizes that processors handle best.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["ByTaps", "weight_gradient"]

Pair = tuple[int, int]


class ByTaps(torch.autograd.Function):
    """PyTorch's convolution, with `weight_gradient` as first derivative by the weights.

    With ``create_graph=True`` it uses PyTorch's own derivative, which can be differentiated again.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        transposed: bool,
        stride: Pair,
        padding: Pair,
        output_padding: Pair,
    ) -> Tensor:
        """x: (N, C, H, W), in the dtype to compute in.  w, bias: any dtype, since autocast leaves them alone."""
        bias = None if bias is None else bias.to(x.dtype)
        return torch.convolution(x, w.to(x.dtype), bias, stride, padding, (1, 1), transposed, output_padding, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        x, w, _bias, *ctx.geometry = inputs
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,), (x, w) = slopes, ctx.saved_tensors
        transposed, stride, padding, output_padding = ctx.geometry
        for_x, for_w, for_bias, *_ = ctx.needs_input_grad
        again = torch.is_grad_enabled()
        dx, dw, _ = torch.ops.aten.convolution_backward(
            slope,
            x,
            w.to(x.dtype),
            None,
            stride,
            padding,
            (1, 1),
            transposed,
            output_padding,
            1,
            (for_x, for_w and again, False),
        )
        if for_w and not again:
            small, large = (x, slope) if transposed else (slope, x)
            dw = torch.empty_like(w).copy_(weight_gradient(small, large, w.shape[2:], stride, padding))
        dbias = slope.sum((0, 2, 3)) if for_bias else None  # by hand: oneDNN would add the weight's
        return dx, dw, dbias, None, None, None, None


def weight_gradient(small: Tensor, large: Tensor, kernel: tuple[int, ...], stride: Pair, padding: Pair) -> Tensor:
    """Σ small[n, o, h, k] large[n, c, h·s + i - p, k·s + j - p] for each (o, c, i, j), in their precision.

    small: (N, O, H', W'), a convolution's output gradient, or a transposed convolution's input.
    large: (N, C, H, W), a convolution's input, or a transposed convolution's output gradient.

    Returns the gradient of the weight, in its shape.
    """
    rows, read = small.permute(0, 2, 3, 1), large.permute(0, 2, 3, 1)  # a row: all channels at one place
    dw = small.new_empty(*kernel, small.shape[1], large.shape[1])
    for i in range(kernel[0]):
        down, over = inside(i, stride[0], padding[0], rows.shape[1], read.shape[1])
        for j in range(kernel[1]):
            right, across = inside(j, stride[1], padding[1], rows.shape[2], read.shape[2])
            left_factor = rows[:, down, right].reshape(-1, small.shape[1])
            right_factor = read[:, over, across].reshape(-1, large.shape[1])
            torch.mm(left_factor.T, right_factor, out=dw[i, j])
    return dw.permute(2, 3, 0, 1)


def inside(tap: int, stride: int, padding: int, places: int, size: int) -> tuple[slice, slice]:
    """Along one side: slices of the places where a tap reads one of `size` pixels, not padding, and of those pixels."""
    first = max(0, -((tap - padding) // stride))
    count = max(0, min(places, (size - 1 + padding - tap) // stride + 1) - first)
    start = first * stride + tap - padding
    return slice(first, first + count), slice(start, start + max(0, (count - 1) * stride + 1), stride)
