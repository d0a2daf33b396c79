"""Norms written out in differentiable operations: PyTorch's third derivatives of its own norms are wrong.

The backward of `batch_norm` reads the batch's mean and deviation as constants, and its own derivative adds what they
contribute. The derivative after that does not: without an error it leaves terms out. R1 with batch norm needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["WrittenOut"]


class WrittenOut(TorchFunctionMode):
    """A mode in which norms of activations are written out. Running statistics stay."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written = INSTEAD.get(func, func)
        return written(*args, **(kwargs or {}))


def normalised(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """(x - mean) / √(variance + eps) over `dims`."""
    centred = x - x.mean(tuple(dims), keepdim=True)
    return centred * (centred.square().mean(tuple(dims), keepdim=True) + eps).rsqrt()


def by_channel(t: Tensor | None, x: Tensor) -> Tensor | None:
    """(C,) -> (1, C, 1, ...), as `x` has axes."""
    return None if t is None else t.view(1, -1, *[1] * (x.ndim - 2))


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    dims = [0, *range(2, x.ndim)]
    return affine(normalised(x, dims, eps), by_channel(weight, x), by_channel(bias, x))


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return F.instance_norm(x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return affine(normalised(x, range(2, x.ndim), eps), by_channel(weight, x), by_channel(bias, x))


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    return affine(normalised(x, range(-len(normalized_shape), 0), eps), weight, bias)


INSTEAD = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.layer_norm: layer_norm,
}
"""Group norm needs no other form: its derivatives are right."""
