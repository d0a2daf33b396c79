"""Stopped gradients, as constants of a player's gradient and as functions of the weights in its Jacobian."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Stops"]


class Stops(TorchFunctionMode):
    """A mode in which `x.detach()` stops gradients as long as `first` says so, and no derivative of them.

        with Stops() as stops:
            loss = ...  # calls detach
        with stops.first():
            (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)  # as without the mode
        torch.autograd.grad(gradient, weights, direction)  # reaches what `detach` stopped

    A player holds x fixed, but x moves with the weights. So the field of training has derivatives along x.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopping = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.detach and args[0].requires_grad:
            return Stopped.apply(args[0], self)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))

    @contextmanager
    def first(self) -> Iterator[None]:
        """The block in which gradients are stopped. After it, derivatives run through."""
        try:
            yield
        finally:
            self.stopping = False


class Stopped(torch.autograd.Function):
    """x, with a gradient once the stops are over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stops: Stops) -> Tensor:
        ctx.stops = stops
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, None]:
        return None if ctx.stops.stopping else slopes[0], None
