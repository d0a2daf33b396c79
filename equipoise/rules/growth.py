"""Growth: the detail of images and the batch size, as functions of images seen (Karras et al. 2018).

The level of detail, lod for short, counts halvings: at lod 0 images have their full size, at lod 1 half of it, and so
on. At a fractional lod an image mixes two sizes. Tensors always have the full size; an image of less detail consists
of larger squares. So code outside this file need not know about growth.
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
        """Parts of a run with a constant batch size: (the last nimg at which a batch may begin, images per batch).

        The first part begins at 0 and the last part ends at inf.

        batch_size: the config's, for parts that set none.
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

    Each size is trained for `stable_kimg`; then the layers of the next size fade in over `fade_kimg`, while lod falls
    by 1. G must be able to grow, like `ProGANGenerator`. A D that cannot grow sees images of the full size.

    initial: smallest size to start from, in pixels. Images are halved as often as this allows: with 4, from 256 to 4
        and from 28 to 7.
    batch_sizes: pairs (pixels, images) with ascending pixels. From size `pixels` on, fading in included, a batch holds
        `images` images over all processes. Smaller sizes have the config's batch_size.
    stable_kimg: thousands of images at each size.
    fade_kimg: thousands of images while the layers of a size fade in.

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
                f"{decayed!r} and growth={self!r} do not go together: the decay would shrink layers that still wait "
                "to fade in, so they would be near 0 when they fade in. Use weight_decay=0, or growth=NoGrowth."
            )

    def doublings(self, resolution: int) -> int:
        """Number of doublings from the first size to `resolution`."""
        count = 0
        while resolution % 2 == 0 and resolution // 2 >= self.initial:
            resolution, count = resolution // 2, count + 1
        return count

    @property
    def lengths(self) -> tuple[int, int]:
        """Images seen at one size, and images seen while the next size fades in."""
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
    """A growth applied to data of one size: functions of the images seen.

    batch_size: the config's.
    """

    def __init__(self, growth: Growth, resolution: int, batch_size: int):
        self.growth, self.resolution = growth, resolution
        self.parts = growth.batches(resolution, batch_size)

    @classmethod
    def of(cls, cfg: Any, resolution: int) -> Self:
        """The stages of a config, for data of `resolution` pixels."""
        return cls(cfg.growth, resolution, cfg.batch_size)

    def require(self, G: nn.Module, settings: object) -> None:
        """Raises ValueError if images start small and `G`, built from `settings`, cannot grow."""
        if self.lod(0) > 0 and not grows(G):
            raise ValueError(
                f"growth={self.growth!r} starts with small images, and {type(settings).__name__} makes all in full "
                "size. Use a generator that grows (generator=ProGANGenerator), or growth=NoGrowth."
            )

    def follow(self, nimg: int, *players: tuple[nn.Module, torch.optim.Optimizer]) -> None:
        """Set each network to the level of detail at `nimg`.

        When layers start or stop fading in, the state of their network's optimiser is cleared. New layers had zero
        gradients so far. With that history Adam's first steps would be 1 / √(1 - beta2) times as long as later steps.
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
        """The batch size of each stage, in order."""
        return [size for _, size in self.parts]

    def batch_size(self, nimg: int) -> int:
        """Images of the global batch that begins at `nimg`."""
        return next(size for last, size in self.parts if nimg <= last)

    def updates(self, nimg: int) -> int:
        """Number of batches before the batch that begins at `nimg`: D's updates so far."""
        count = position = 0
        for last, size in self.parts:
            if nimg <= last:
                break
            begun = max(int(last - position) // size + 1, 0)  # in this part; the last batch may end in the next part
            count, position = count + begun, position + begun * size
        return count + (nimg - position) // size
