"""Snapshots of a run at a checkpoint: the generator's file, and a grid from the same z."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from torch import nn

from equipoise.compute.distributed import from_rank_0, max_over_ranks, rank
from equipoise.config import TrainConfig
from equipoise.core.files import replace_file, writing
from equipoise.core.types import ImageSpec
from equipoise.generate import Generator, averaged_generator, grid, png, sample, save_generator
from equipoise.generate.generator import IN_RUN
from equipoise.runs import Stats

from .events import Moment

__all__ = ["Snapshots", "averaged"]

GRID = 100
"""Images in a grid, ten per row: with ten classes, each column is a class."""


def averaged(net: nn.Module, cfg: TrainConfig, spec: ImageSpec, nimg: int) -> Generator:
    """The averaged generator `net` of a run on the data of `spec`, with standing statistics."""
    of_g = cfg.spec_of_g(spec)
    return Generator(averaged_generator(net, cfg, spec), cfg.generator, of_g, nimg=nimg)


class Snapshots:
    """Write generator/ and samples/ of a run, as an event of the loop. Rank 0 writes."""

    def __init__(self, run_dir: Path, cfg: TrainConfig, spec: ImageSpec):
        self.run_dir, self.cfg, self.spec = run_dir, cfg, spec
        self.begun = time.monotonic()
        self.minutes = cfg.report.minutes
        """Minutes until the next early grid, before the first snapshot."""

    def __call__(self, now: Moment) -> None:
        if now.saved or self._in_time(now):
            self.save(now.ema.model, now.nimg, now.checkpoints.last, now.stats)

    def _in_time(self, now: Moment) -> bool:
        """Whether `minutes` have passed since the start. If so, double them for the next grid."""
        if self.minutes is None or now.nimg >= now.report.snapshot_kimg * 1000:
            return False
        elapsed = (time.monotonic() - self.begun) / 60
        if not max_over_ranks(int(rank() == 0 and elapsed >= self.minutes)):
            return False
        self.minutes *= 2
        return True

    def missing(self, nimg: int) -> bool:
        """Whether the run was killed between its checkpoint at `nimg` and the grid, which is written last."""
        return nimg > 0 and from_rank_0(lambda: not self._grid(nimg).exists())

    def _grid(self, nimg: int) -> Path:
        return self.run_dir / "samples" / f"{nimg:012d}.png"

    def save(self, net: nn.Module, nimg: int, last_checkpoint: str, stats: Stats | None = None) -> None:
        """Write the averaged generator `net` and its grid. stats: shows the grid in TensorBoard too.

        Raises:
            RunError: if they cannot be written. It names the last good checkpoint.
        """
        from_rank_0(lambda: self._write(net, nimg, last_checkpoint, stats))

    def _write(self, net: nn.Module, nimg: int, last_checkpoint: str, stats: Stats | None) -> None:
        generator = averaged(net, self.cfg, self.spec, nimg)
        pixels = grid(np.concatenate([x for x, _ in sample(generator, GRID, seed=self.cfg.seed)]))
        with writing(self.run_dir, kept=f"The last good checkpoint is {last_checkpoint}."):
            save_generator(generator, self.run_dir / IN_RUN)
            self._grid(nimg).parent.mkdir(exist_ok=True)
            replace_file(self._grid(nimg), png(pixels))
            if stats is not None:
                stats.image("samples", pixels, nimg)
