"""Batches whose size follows the stages of a growth."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self

import torch

from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import Batch
from equipoise.data import Dataset, InfiniteBatches
from equipoise.data.pixels import dequantise
from equipoise.data.resident import resident
from equipoise.nn import detail
from equipoise.rules import Stages

__all__ = ["BatchesByStage"]


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
