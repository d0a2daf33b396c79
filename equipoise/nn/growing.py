"""Networks that grow: a level of detail that layers read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["LevelOfDetail", "grows", "set_lod"]


class LevelOfDetail(nn.Module):
    """What a network that grows keeps to know its lod: `lod = self.lod()`, 0 until `set_lod`.

    A buffer, so averages, copies, checkpoints and the generator's file hold it. It stays on the host wherever the
    network goes: which layers are used depends on it, and the host must not wait for a device to know.

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
        """Set it. Returns whether other layers are in use from now on, or a layer begins or ends to fade in.

        Raises:
            ValueError: if it is out of range.
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
    """Bring every part of `net` that grows to a level of detail. Returns what `LevelOfDetail.move` does."""
    moved = [module.move(lod) for module in net.modules() if isinstance(module, LevelOfDetail)]
    return any(moved)
