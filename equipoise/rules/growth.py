"""Growth: how detailed images are, and how many make a batch, as functions of images seen (Karras et al. 2018).

The level of detail, lod for short, counts halvings: at lod 0 images have their full size, at lod 1 half of it, and so
on. Between two whole numbers an image is a mixture of two sizes. Tensors have the full size all the time, an image of
less detail being made of larger squares, so whatever else sees images need not know of growth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import nn

from equipoise.core.types import component
from equipoise.nn import grows, set_lod

__all__ = ["Growth", "NoGrowth", "ProgressiveGrowing", "Stages"]

# ---- settings --------------------------------------------------------------------------------------------


class Growth(ABC):
    """Settings of how detail and batch size follow the images seen."""

    @abstractmethod
    def lod(self, nimg: int, resolution: int) -> float:
        """The level of detail after `nimg` images, for data of `resolution` pixels; 0 is full size."""

    @abstractmethod
    def batches(self, resolution: int, batch_size: int) -> Sequence[tuple[float, int]]:
        """Parts of a run with batches of one size, as (the last nimg at which one may begin, images in each).

        The first part begins at 0 and the last one ends at inf. batch_size: the config's, for the rest.
        """


@component
class NoGrowth(Growth):
    """Images have their full size from the start."""

    def lod(self, nimg: int, resolution: int) -> float:  # noqa: ARG002
        return 0.0

    def batches(self, resolution: int, batch_size: int) -> Sequence[tuple[float, int]]:  # noqa: ARG002
        return [(torch.inf, batch_size)]


@component
class ProgressiveGrowing(Growth):
    """Images start small, and double when G and D have learned their size (Karras et al. 2018, sec. 2).

    Each size is trained for `stable_kimg`; then the layers of the next one fade in over `fade_kimg`, along which
    lod falls by 1. G must be one that grows, such as `ProGANGenerator`; a D that does not sees images of the full size.

    initial: the least pixels to start with. Images are halved as often as this allows: 4 leads from 256 to 4, from 28
        to 7.
    batch_sizes: pairs (pixels, images): from this size on, fading in included, a batch holds so many images over all
        processes, in the order of pixels. Smaller sizes have the config's batch_size, as all of them without pairs.

    Raises:
        ValueError: if the sizes of `batch_sizes` do not ascend.
    """

    initial: int = Field(default=4, ge=4)
    stable_kimg: float = Field(default=600, gt=0)
    fade_kimg: float = Field(default=600, ge=0)
    batch_sizes: tuple[tuple[int, Annotated[int, Field(ge=1)]], ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for `batch_sizes` whose pixels do not ascend. Name each size once, in order."""
        if any(small >= large for (small, _), (large, _) in pairwise(self.batch_sizes)):
            raise ValueError(
                f"batch_sizes={self.batch_sizes} must name sizes in ascending order, each once, such as "
                "'batch_sizes=[[4,128],[32,64]]'"
            )

    def check(self, cfg: Any) -> None:
        """Raises ValueError for growth with `weight_decay`: layers that wait to fade in have no gradient but the decay,
        and shrink to nothing. Set `weight_decay=0`.
        """
        decayed = next((optim for optim in (cfg.g_optim, cfg.d_optim) if optim.decays), None)
        if decayed is not None:
            raise ValueError(
                f"{decayed!r} and growth={self!r} do not go together: layers that wait to fade in have no "
                "gradient but the decay, and would be near 0 when their turn comes. Use weight_decay=0, or "
                "growth=NoGrowth."
            )

    def doublings(self, resolution: int) -> int:
        """How often images double on their way to `resolution`."""
        count = 0
        while resolution % 2 == 0 and resolution // 2 >= self.initial:
            resolution, count = resolution // 2, count + 1
        return count

    @property
    def lengths(self) -> tuple[int, int]:
        """Images of a size alone, and of the fading in of the next one."""
        return max(round(self.stable_kimg * 1000), 1), round(self.fade_kimg * 1000)

    def lod(self, nimg: int, resolution: int) -> float:
        stable, fade = self.lengths
        phase, rest = divmod(nimg, stable + fade)
        faded = (rest - stable) / fade if rest > stable else 0.0
        return max(self.doublings(resolution) - phase - faded, 0.0)

    def batches(self, resolution: int, batch_size: int) -> Sequence[tuple[float, int]]:
        stable, fade = self.lengths
        doublings = self.doublings(resolution)
        until = [k * (stable + fade) + stable - (fade == 0) for k in range(doublings)]
        parts = []
        for k, last in enumerate([*until, torch.inf]):
            sizes = [images for pixels, images in self.batch_sizes if pixels <= resolution >> (doublings - k)]
            parts.append((last, [batch_size, *sizes][-1]))
        return parts


class Stages:
    """What a growth means for data of one size: functions of the images seen.

    batch_size: the config's.
    """

    def __init__(self, growth: Growth, resolution: int, batch_size: int):
        self.growth, self.resolution = growth, resolution
        self.parts = growth.batches(resolution, batch_size)

    @classmethod
    def of(cls, cfg: Any, resolution: int) -> Self:
        """Those of a config, for data of `resolution` pixels."""
        return cls(cfg.growth, resolution, cfg.batch_size)

    def require(self, G: nn.Module, settings: object) -> None:
        """Raises ValueError if images start small and `G`, made by `settings`, makes all in full size."""
        if self.lod(0) > 0 and not grows(G):
            raise ValueError(
                f"growth={self.growth!r} starts with small images, and {type(settings).__name__} makes all in full "
                "size. Take a generator that grows (generator=ProGANGenerator), or growth=NoGrowth."
            )

    def follow(self, nimg: int, *players: tuple[nn.Module, torch.optim.Optimizer]) -> None:
        """Bring each network to the level of detail of `nimg`.

        Where layers begin or end to fade in, the optimiser of their network forgets the past. That of the new ones is
        a past without gradients, after which Adam's first steps would be 1 / √(1 - beta2) times as long as later ones.
        """
        lod = self.lod(nimg)
        for net, optimizer in players:
            if set_lod(net, lod):
                optimizer.state.clear()

    def lod(self, nimg: int) -> float:
        """The level of detail."""
        return self.growth.lod(nimg, self.resolution)

    @property
    def batch_sizes(self) -> list[int]:
        """Of all stages, in their order."""
        return [size for _, size in self.parts]

    def batch_size(self, nimg: int) -> int:
        """Images of the global batch that begins at `nimg`."""
        return next(size for last, size in self.parts if nimg <= last)

    def updates(self, nimg: int) -> int:
        """Batches before the one that begins at `nimg`, which is as many as D has been updated."""
        count = position = 0
        for last, size in self.parts:
            if nimg <= last:
                break
            begun = max(int(last - position) // size + 1, 0)  # in this part; the last of them may end in the next
            count, position = count + begun, position + begun * size
        return count + (nimg - position) // size
