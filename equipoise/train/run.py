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
from .clock import Clock
from .events import Event, Moment, checkpoint, log, spectra
from .gan import GAN
from .watching import Watching

__all__ = ["Run"]


@dataclass
class Run:
    """The state of a run while it trains.

    nimg: images seen at the start.  total: images seen at the end.
    data: the images of each update of D.  stats, events: see `Moment`, `Event`. A finished run lacks these three.
    clock: for files that are due by time.
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
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(self.cfg.report, self.checkpoints)

    def report_by(self, evaluations: Event, own: Sequence[Event], snapshots: Event, doctor: Watching) -> None:
        """Set the events. own: the caller's. Their statistics, and the evaluations', are written by `log`.

        The doctor measures before `log` and judges after it; it may stop the run when all files are written.
        """
        asked = (spectra, doctor.measure, evaluations, *own, log, doctor.judge)
        self.events = (*asked, checkpoint, snapshots, doctor.stop)

    def after(self, now: Moment) -> Sequence[Event]:
        """The events of a moment, in order.

        If a signal asks for a checkpoint, it is written first, with the statistics before it: the process may be killed
        soon, and an evaluation or a grid can take minutes.
        """
        return (log, checkpoint, *self.events) if now.asked else self.events
