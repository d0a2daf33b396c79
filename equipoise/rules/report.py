"""Reports of a run while it trains, and their intervals."""

from __future__ import annotations

from pydantic import Field

from equipoise.core.types import component

from .evaluation import Evaluate

__all__ = ["Report"]


@component
class Report:
    """Statistics, checkpoints, grids and evaluations of a run. None of them affects training.

    log_kimg: statistics are written every `log_kimg` thousand images.
    snapshot_kimg: a checkpoint and a grid of samples are written every `snapshot_kimg` thousand images.
    minutes: until the first snapshot, grids are written after `minutes`, 2 · `minutes`, 4 · `minutes`, ... of training.
        None: no early grids.
    keep: number of newest checkpoints to keep.
    evaluation: measure the averaged generator while it trains, and keep the best.
    """

    log_kimg: float = Field(default=1, gt=0)
    snapshot_kimg: float = Field(default=10, gt=0)
    minutes: float | None = Field(default=None, gt=0)
    keep: int = Field(default=2, ge=1)
    evaluation: Evaluate | None = None
