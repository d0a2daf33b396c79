"""Bilinear sampling, differentiable in the image any number of times."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bilinear"]


def bilinear(x: Tensor, grid: Tensor) -> Tensor:
    """`grid_sample` with corners aligned: x (N, C, H, W) at grid (N, R, S, 2) in [-1, 1] -> (N, C, R, S).

    Before torch 2.13 `grid_sample` lacks a second derivative. Sampling is linear in x, so its derivative is its
    transpose, whose derivative is sampling again. The grid gets no gradient.
    """
    y: Tensor = Sample.apply(x, grid)  # type: ignore[no-untyped-call]
    return y


class Sample(torch.autograd.Function):
    """Sampling: x (N, C, H, W), grid (N, R, S, 2) -> (N, C, R, S)."""

    @staticmethod
    def forward(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, align_corners=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
        x, grid = inputs
        ctx.save_for_backward(grid)
        ctx.shape = x.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return Transposed.apply(gradient, grid, ctx.shape), None  # type: ignore[no-untyped-call]


class Transposed(torch.autograd.Function):
    """The transpose of sampling: y (N, C, R, S), grid (N, R, S, 2), shape -> (N, C, H, W)."""

    @staticmethod
    def forward(y: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        x = y.new_zeros(()).expand(shape)  # only the grid's gradient would read its values
        transpose = torch.ops.aten.grid_sampler_2d_backward
        result: Tensor = transpose(y, x, grid, 0, 0, True, (True, False))[0]  # bilinear, zeros outside, align_corners
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, torch.Size], _: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return bilinear(gradient, grid), None, None
