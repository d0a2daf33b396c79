"""The state of a run while it trains."""

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
    """The state of a run while it trains.

    nimg: images seen at the start.  total: images seen at the end.
    data: the images of each update of D.  stats, events: see `Moment`, `Event`. A finished run lacks these three.
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
