"""Reports of a run while it trains, and their intervals."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from equipoise.core.types import component

from .evaluation import Evaluate

__all__ = ["Report", "SymptomName"]


SymptomName = Literal[
    "augment_leaks",
    "augment_limit",
    "bound_grows",
    "class_ignored",
    "collapsed",
    "d_strong",
    "d_weak",
    "data",
    "dead_units",
    "diverged",
    "ema_long",
    "few_seen",
    "got_worse",
    "logits_grow",
    "memorised",
    "norms_misfit",
    "oscillates",
    "overfits",
    "saturated",
    "schedule_ended",
    "steps_large",
    "steps_small",
    "vanishes",
]
"""Names of the symptoms in `equipoise.doctor.SYMPTOMS`."""


def words(given: object) -> object:
    """The words of a text that commas separate, as a tuple; other values unchanged."""
    if not isinstance(given, str):
        return given
    return tuple(word.strip() for word in given.split(",") if word.strip())


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
    watch: look for symptoms at each snapshot, and warn when one begins or ends.
    stop_on: symptoms that end the run when they begin, by name, such as ``diverged,collapsed``; empty: none. They are
        looked for if `watch` is set.

    Raises:
        ValueError: for `stop_on` without `watch`.
    """

    log_kimg: float = Field(default=1, gt=0)
    snapshot_kimg: float = Field(default=10, gt=0)
    minutes: float | None = Field(default=1, gt=0)
    checkpoint_minutes: float | None = Field(default=10, gt=0)
    keep: Annotated[int, Field(ge=1)] | Literal["all"] = 2
    keep_every_kimg: float | None = Field(default=None, gt=0)
    evaluation: Evaluate | None = None
    watch: bool = True
    stop_on: Annotated[tuple[SymptomName, ...], BeforeValidator(words)] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for `stop_on` without `watch`: no symptom would be looked for. Set `watch` too."""
        if self.stop_on and not self.watch:
            raise ValueError(
                f"stop_on={','.join(self.stop_on)} needs watch=true: symptoms are not looked for without it"
            )
