"""Reports of a run while it trains, and their intervals."""

from __future__ import annotations

from typing import Annotated, Literal

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
    checkpoint_minutes: a checkpoint is also written when the last one is `checkpoint_minutes` old, so no more training
        than that is lost with a machine. None: checkpoints by images alone.
    keep: number of newest checkpoints to keep, or "all".
    keep_every_kimg: the first checkpoint past each multiple of `keep_every_kimg` thousand images is kept too, however
        old. None: `keep` decides alone.
    evaluation: measure the averaged generator while it trains, and keep the best.
    """

    log_kimg: float = Field(default=1, gt=0)
    snapshot_kimg: float = Field(default=10, gt=0)
    minutes: float | None = Field(default=1, gt=0)
    checkpoint_minutes: float | None = Field(default=10, gt=0)
    keep: Annotated[int, Field(ge=1)] | Literal["all"] = 2
    keep_every_kimg: float | None = Field(default=None, gt=0)
    evaluation: Evaluate | None = None
