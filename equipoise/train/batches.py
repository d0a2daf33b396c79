"""Batches for the updates of D. Their size follows the stages of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from types import TracebackType
from typing import NamedTuple, Self

import torch

from equipoise.compute.distributed import rank, world_size
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import Batch
from equipoise.data import Dataset, InfiniteBatches, few, mirrored
from equipoise.data.pixels import dequantise
from equipoise.data.resident import resident
from equipoise.nn import detail
from equipoise.rules import Stages

__all__ = ["BatchesByStage", "Drawn", "Streams"]


class BatchesByStage:
    """One process's share of the endless stream, in batches of the size and detail of their stage.

    Like `InfiniteBatches`, but `stages` sets the size and detail of the global batch that begins at nimg. So a run
    resumed at start = nimg reads the same batches as an uninterrupted run.

    noise: width of `dequantise`, applied before detail is removed; 0: none. The noise is a function of (seed, purpose,
        rank, nimg).

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
        images = resident(dataset, device)  # decided once, not for each stage
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


class Drawn(NamedTuple):
    """The images of an update of D: the share of this process, on its device.

    held_out: real images that D is not trained on, for an augmentation that reads them.
    labelled: images whose classes D learns, for a head that may not read the batch's labels.
    """

    batch: Batch
    held_out: Batch | None
    labelled: Batch | None


class Streams:
    """The images of a run.

    dataset: the images that D is trained on. `cfg.data.mirror` adds the same images mirrored, with their labels.
    held_out: images of the data set that D is not trained on, or None.

    Raises:
        ValueError: if the head asks for more labelled images than there are.
    """

    def __init__(self, cfg: TrainConfig, stages: Stages, dataset: Dataset, held_out: Dataset | None):
        labels = cfg.head.conditioning.labels_read(len(dataset), dataset.spec.num_classes)
        labelled = None if labels is None else mirrored(few(dataset, labels), cfg.data.mirror)
        self.cfg, self.stages = cfg, stages
        self.sources: list[tuple[Dataset | None, Purpose]] = [
            (mirrored(dataset, cfg.data.mirror), Purpose.NOISE_ON_REAL),
            (held_out, Purpose.NOISE_ON_HELD_OUT),
            (labelled, Purpose.NOISE_ON_LABELLED),
        ]

    @contextmanager
    def opened(self, nimg: int, device: torch.device) -> Iterator[Iterator[Drawn]]:
        """An endless iterator over the images for D's updates from `nimg` on."""
        endless = partial(BatchesByStage, stages=self.stages, seed=self.cfg.seed, start=nimg, device=device)
        endless = partial(endless, rank=rank(), world=world_size(), noise=self.cfg.dequantise)
        with ExitStack() as stack:
            streams: list[Iterator[Batch | None]] = [
                repeat(None) if source is None else stack.enter_context(endless(source, purpose=purpose))
                for source, purpose in self.sources
            ]
            yield (Drawn(*parts) for parts in zip(*streams, strict=False))
