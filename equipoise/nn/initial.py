"""Initial weights that keep the standard deviation of their distribution: measured on a draw, it has an error."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

__all__ = ["initial_std", "normal_"]


def normal_(layer: nn.Module, std: float) -> None:
    """Draw the weights of `layer` from N(0, std²), in place, and keep std for `initial_std`."""
    assert isinstance(layer.weight, Tensor)
    nn.init.normal_(layer.weight, 0.0, std)
    cast("Any", layer).initial_std = std


def initial_std(layer: nn.Module) -> float | None:
    """Standard deviation that `normal_` drew the weights of `layer` with; None: something else drew them."""
    std: float | None = getattr(layer, "initial_std", None)
    return std
