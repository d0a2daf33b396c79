"""Networks that grow: a level of detail that layers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["LevelOfDetail", "grows", "set_lod"]


class LevelOfDetail(nn.Module):
    """The level of detail (lod) of a network that grows: `lod = self.lod()`, 0 until `set_lod`.

    The lod is a buffer, so averages, copies, checkpoints and the generator's file hold it. It stays on the host when
    the network moves: it decides which layers run, and the host must not wait for a device to read it.

    most: the largest lod that the network is defined for.
    """

    value: Tensor

    def __init__(self, most: int):
        super().__init__()
        self.most = most
        self.register_buffer("value", torch.zeros((), dtype=torch.float64, device="cpu"))

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:  # noqa: ARG002
        return self

    def forward(self) -> float:
        return float(self.value)

    def move(self, lod: float) -> bool:
        """Set the lod. Returns whether the layers in use change, or a layer starts or stops fading in.

        Raises:
            ValueError: if `lod` is out of range.
        """
        if not 0 <= lod <= self.most:
            raise ValueError(f"this network has levels of detail from 0 to {self.most}, got {lod}")
        old = self()
        self.value.fill_(lod)
        return (old // 1, -old // 1) != (lod // 1, -lod // 1)


def grows(net: nn.Module) -> bool:
    """Whether the network has levels of detail."""
    return any(isinstance(module, LevelOfDetail) for module in net.modules())


def set_lod(net: nn.Module, lod: float) -> bool:
    """Set the lod of every growing part of `net`. Returns True if any `LevelOfDetail.move` did."""
    moved = [module.move(lod) for module in net.modules() if isinstance(module, LevelOfDetail)]
    return any(moved)
