"""Growth: how detailed images are, and how many make a batch, as functions of images seen (Karras et al. 2018).

The level of detail, lod for short, counts halvings: at lod 0 images have their full size, at lod 1 half of it, and so
on. Between two whole numbers an image is a mixture of two sizes. Tensors have the full size all the time, an image of
less detail being made of larger squares, so whatever else sees images need not know of growth.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from .data import Dataset, InfiniteBatches
from .data.pixels import dequantise
from .data.resident import resident
from .randomness import Purpose, stream
from .types import Batch, component

__all__ = [
    "BatchesByStage",
    "Growth",
    "LevelOfDetail",
    "NoGrowth",
    "ProgressiveGrowing",
    "Stages",
    "detail",
    "enlarge",
    "grows",
    "set_lod",
    "shrink",
]

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
        if any(small >= large for (small, _), (large, _) in pairwise(self.batch_sizes)):
            raise ValueError(
                f"batch_sizes={self.batch_sizes} must name sizes in ascending order, each once, such as "
                "'batch_sizes=[[4,128],[32,64]]'"
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


# ---- images of less detail -------------------------------------------------------------------------------


def shrink(x: Tensor, halvings: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H / 2^halvings, W / 2^halvings), means over squares."""
    return F.avg_pool2d(x, 2**halvings) if halvings else x


def enlarge(x: Tensor, doublings: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H · 2^doublings, W · 2^doublings), each pixel a square."""
    return F.interpolate(x, scale_factor=2**doublings, mode="nearest") if doublings else x


def detail(x: Tensor, lod: float) -> Tensor:
    """Images (N, C, H, W) at a level of detail, in their full size.

    Between two whole numbers, the mixture of both that G makes of its own images there.
    """
    whole, fade = int(lod), lod % 1
    small = shrink(x, whole)
    if fade:
        small = torch.lerp(small, enlarge(shrink(small, 1), 1), fade)
    return enlarge(small, whole)


# ---- networks that grow ----------------------------------------------------------------------------------


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


# ---- batches ---------------------------------------------------------------------------------------------


class BatchesByStage:
    """One process's share of the endless stream, in batches of the size and the detail of their stage.

    `InfiniteBatches`, but that the global batch that begins at nimg is made as `stages` says of nimg. So a run that
    goes on from start = nimg reads what the uninterrupted one does.

    noise: the width of `dequantise`, which comes before detail is taken away. 0: none. The noise is a function of
        (seed, purpose, rank, nimg).

    Raises:
        ValueError: if a batch size is not a multiple of world, or a number is out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        stages: Stages,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        noise: float = 0.0,
        purpose: Purpose = Purpose.NOISE_ON_REAL,
    ):
        images = resident(dataset, device)  # decided once, and not again for each stage
        self.noise, self.key = noise, (seed, purpose, rank)
        self.endless = partial(InfiniteBatches, images, seed=seed, rank=rank, world=world, device=device, keep=False)
        self.stages, self.nimg = stages, start
        self.size = stages.batch_size(start)
        self.batches = self.endless(self.size, start=start)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        size = self.stages.batch_size(self.nimg)
        if size != self.size:
            self.batches.close()
            self.size, self.batches = size, self.endless(size, start=self.nimg)
        batch = next(self.batches)
        x = dequantise(batch.x, self.noise, stream(*self.key, self.nimg, device=batch.x.device))
        lod = self.stages.lod(self.nimg)
        self.nimg += size
        return Batch(detail(x, lod), batch.y)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.batches.close()
