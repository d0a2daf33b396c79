"""Grids and checkpoints that are due by time, not by images."""

from __future__ import annotations

import time
from typing import NamedTuple

from equipoise.compute.distributed import max_over_ranks, rank
from equipoise.rules import Report
from equipoise.runs import Checkpoints

__all__ = ["Clock", "Due"]

MINUTE = 60


class Due(NamedTuple):
    """Files that are due by time.

    grid: an early grid, before the first snapshot.  checkpoint: the last checkpoint is old.
    """

    grid: bool = False
    checkpoint: bool = False


class Clock:
    """The time since the start and since the last checkpoint. The clock of rank 0 decides for every process."""

    def __init__(self, report: Report, checkpoints: Checkpoints):
        self.report, self.checkpoints = report, checkpoints
        self.begun = time.monotonic()
        self.minutes = report.minutes
        """Minutes until the next early grid."""

    def due(self, nimg: int) -> Due:
        """The files that are due after `nimg` images. Each early grid doubles the time until the next."""
        early = self.minutes is not None and nimg < self.report.snapshot_kimg * 1000
        if not early and self.report.checkpoint_minutes is None:
            return Due()
        own = self._own(early) if rank() == 0 else Due()
        both = max_over_ranks(own.grid + 2 * own.checkpoint)
        due = Due(bool(both & 1), bool(both & 2))
        if due.grid and self.minutes is not None:
            self.minutes *= 2
        return due

    def _own(self, early: bool) -> Due:
        """The same by this process's clock."""
        now, allowed = time.monotonic(), self.report.checkpoint_minutes
        grid = early and self.minutes is not None and now - self.begun >= self.minutes * MINUTE
        since = max(self.begun, self.checkpoints.written)
        return Due(grid, allowed is not None and now - since >= allowed * MINUTE)
