"""A run under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from equipoise.compute.interrupt import Interrupt
from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec
from equipoise.rules import EMA
from equipoise.runs import Checkpoints, Stats

from .batches import Drawn
from .events import Event
from .gan import GAN

__all__ = ["Run"]


@dataclass
class Run:
    """A run that is being trained.

    nimg: where it begins.  total: where it ends.
    data: of each update of D.  stats, events: as `Moment` has them. A finished run has none of these three.
    """

    cfg: TrainConfig
    spec: ImageSpec
    gan: GAN
    ema: EMA
    checkpoints: Checkpoints
    interrupt: Interrupt
    nimg: int
    total: int
    data: Iterator[Drawn] = field(init=False)
    stats: Stats = field(init=False)
    events: Sequence[Event] = field(init=False)
