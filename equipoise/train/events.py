"""Events between iterations: evaluations, statistics, checkpoints, grids, and events that a user adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from equipoise.rules import EMA, Report
from equipoise.runs import Checkpoints, Stats, require_finite
from equipoise.weights import spectral_stats

from .clock import Due
from .gan import GAN

__all__ = ["Event", "Moment", "checkpoint", "log", "spectra"]


@dataclass(frozen=True)
class Moment:
    """The end of an iteration.

    gan, ema: the networks; the averaged generator is ``ema.model``.
    nimg: real images that D has seen.  increment: real images seen in this iteration.
    last: whether the run ends here.
    asked: number of a signal that asks for a checkpoint, or for a checkpoint and the end of the run; 0: none.
    due: files that are due by time.
    stats: ``stats.add({"mine": tensor}, nimg)`` reports a scalar beside the steps' scalars.
    checkpoints: of the run; ``checkpoints.last`` names the newest.
    report: the intervals of reports.
    """

    gan: GAN
    ema: EMA
    nimg: int
    increment: int
    last: bool
    asked: int
    due: Due
    stats: Stats
    checkpoints: Checkpoints
    report: Report

    def passed(self, every_kimg: float) -> bool:
        """Whether this iteration went past a multiple of `every_kimg` thousand images."""
        every = every_kimg * 1000
        return self.nimg // every != (self.nimg - self.increment) // every

    @property
    def evaluated(self) -> bool:
        """Whether an evaluation is due here, if the run has evaluations."""
        evaluation = self.report.evaluation
        return self.last or (evaluation is not None and self.passed(evaluation.every_kimg))

    @property
    def snapshot(self) -> bool:
        """Whether a checkpoint and a grid are due by the images seen."""
        return self.evaluated or self.passed(self.report.snapshot_kimg)

    @property
    def saved(self) -> bool:
        """Whether the run writes a checkpoint here."""
        return self.snapshot or self.due.checkpoint or bool(self.asked)

    @property
    def drawn(self) -> bool:
        """Whether the run writes a grid and the averaged generator here."""
        return self.snapshot or self.due.grid or bool(self.asked)


Event = Callable[[Moment], None]
"""A callback after each iteration, on every process. It decides whether anything is due."""


def spectra(now: Moment) -> None:
    """Spectral norms of D's layers, among the statistics of a snapshot."""
    if now.snapshot:
        now.stats.add(spectral_stats(now.gan.D), now.nimg)


def log(now: Moment) -> None:
    """Show how far the run is, and write the averages when they are due. Only then the host waits for the device."""
    now.stats.moved(now.nimg)
    if now.saved or now.passed(now.report.log_kimg):
        now.stats.write(now.nimg, now.checkpoints.last)


def checkpoint(now: Moment) -> None:
    """Write a checkpoint, before the grid: a process that must stop may be killed before the grid is written."""
    if now.saved:
        require_finite({"G": now.gan.G, "D": now.gan.D}, now.nimg, now.checkpoints.last)
        now.checkpoints.save(now.nimg)
