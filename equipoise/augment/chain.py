"""Several augmentations, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from equipoise.core.types import component

from .base import Augment, Augmentation, Means

__all__ = ["Chain"]


@component
class Chain(Augment):
    """Augmentations in sequence, first to last: ``Chain((ADA(), InstanceNoise()))``."""

    parts: tuple[Augment, ...] = ()

    @property
    def held_out(self) -> float:
        return max((part.held_out for part in self.parts), default=0.0)

    @property
    def reads_sign(self) -> bool:
        return any(part.reads_sign for part in self.parts)

    @property
    def all_passes(self) -> bool:
        return any(part.all_passes for part in self.parts)

    def build(self) -> Chained:
        return Chained([part.build() for part in self.parts])


class Chained(Augmentation):
    """x -> parts[-1](... parts[0](x))."""

    def __init__(self, parts: Sequence[Augmentation]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def at(self, nimg: int) -> None:
        for part in cast("list[Augmentation]", self.parts):
            part.at(nimg)

    def adapt(self, sign_real: Tensor, num_images: int, means: Means | None = None) -> dict[str, Tensor]:
        stats: dict[str, Tensor] = {}
        for part in cast("list[Augmentation]", self.parts):
            stats |= part.adapt(sign_real, num_images, means)
        return stats
