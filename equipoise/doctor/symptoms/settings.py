"""Symptoms of settings that do not fit the length of the run or the data: averages, schedules, augmentation, length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.augment import ADA
from equipoise.doctor.changes import Proposal, setting, with_term
from equipoise.doctor.evidence import Evidence, end

from .base import Severity, Symptom
from .weights import over

__all__ = ["AugmentAtLimit", "AugmentLeaks", "AverageTooLong", "ScheduleEnded", "TooFewSeen"]


@dataclass(frozen=True)
class AverageTooLong(Symptom):
    """The average of G still holds its initial weights."""

    name: ClassVar[str] = "ema_long"
    title: ClassVar[str] = "the average of G is too long"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("config.txt",)
    source: ClassVar[str] = "the share of the initial weights is 0.5 ** (kimg / half-life): 5 % blurs every image"
    keeps: ClassVar[bool] = True

    share: float = 0.05

    def seen(self, evidence: Evidence) -> str | None:
        cfg = evidence.config
        if cfg is None or cfg.ema.rampup is not None or cfg.ema.halflife_kimg == 0 or cfg.start is not None:
            return None
        late = max(evidence.kimg, 0.25 * cfg.total_kimg)
        left = 0.5 ** (late / cfg.ema.halflife_kimg)
        if left <= self.share:
            return None
        return f"after {late:.4g} kimg the average is {left:.0%} initial weights (half-life {cfg.ema.halflife_kimg:g})"

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("ema.halflife_kimg is long for this run", "ema.rampup=none keeps the initial weights")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("ema.rampup", 0.05, "the half-life is at most 5 % of the images seen")
        if evidence.config is not None:
            yield setting("ema.halflife_kimg", evidence.config.total_kimg / 50, "a fiftieth of the run")


@dataclass(frozen=True)
class ScheduleEnded(Symptom):
    """A learning rate has come to its end long before the run."""

    name: ClassVar[str] = "schedule_ended"
    title: ClassVar[str] = "learning rate schedule ended"
    severity: ClassVar[Severity] = "mild"
    reads: ClassVar[tuple[str, ...]] = ("config.txt",)
    source: ClassVar[str] = "a rate under a thousandth of its start trains nothing"
    keeps: ClassVar[bool] = True

    left: float = 0.1

    def seen(self, evidence: Evidence) -> str | None:
        progress = evidence.progress
        if progress is None or progress > 1 - self.left:
            return None
        ended = [player for player in "DG" if over(evidence, player)]
        return f"the rate of {' and '.join(ended)} is over at {progress:.0%} of the run" if ended else None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("the schedule is shorter than total_kimg",)

    def changes(self, evidence: Evidence) -> Proposal:
        for player in "DG":
            if evidence.config is not None and over(evidence, player):
                yield setting(f"{player.lower()}_optim.lr", 2e-4, "a constant rate")
        yield setting("total_kimg", evidence.kimg, "end the run here")


@dataclass(frozen=True)
class AugmentAtLimit(Symptom):
    """ADA's p is at its bound: the augmentation is not enough for so few images."""

    name: ClassVar[str] = "augment_limit"
    title: ClassVar[str] = "augmentation at its limit"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("augment/p",)
    source: ClassVar[str] = "Karras et al. 2020, fig. 3 and app. C: above p = 0.8 transforms begin to leak"
    keeps: ClassVar[bool] = True

    p: float = 0.8

    def seen(self, evidence: Evidence) -> str | None:
        cfg, points = evidence.config, evidence.curve("augment/p")
        adapts = cfg is None or (isinstance(cfg.augment, ADA) and cfg.augment.heuristic != "fixed")
        if adapts and len(points) >= 10 and end(points) > self.p:
            return f"p is {end(points):.2f} at the end"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("too few images for this D", "too few groups of transforms")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("augment.groups", "[blit,geometric,color,filter,corruption]", "more kinds of transforms")
        yield with_term(evidence.config, "R1(gamma=10)", "a stronger penalty")
        yield setting("data.mirror", "true", "twice the images, where a mirrored image is one")


@dataclass(frozen=True)
class AugmentLeaks(Symptom):
    """Transforms are so frequent that G learns to make transformed images."""

    name: ClassVar[str] = "augment_leaks"
    title: ClassVar[str] = "augmentation leaks"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("config.txt", "augment/p")
    source: ClassVar[str] = "Karras et al. 2020, app. C: the originals cannot be told from p = 1; it is safe below 0.8"

    p: float = 0.9

    def seen(self, evidence: Evidence) -> str | None:
        cfg = evidence.config
        if cfg is None or not isinstance(cfg.augment, ADA):
            return None
        moving = {"blit", "geometric"} & set(cfg.augment.groups)
        if not moving:
            return None
        values = evidence.last("augment/p", 5)
        fixed = cfg.augment.heuristic == "fixed" and cfg.augment.initial > self.p
        if fixed or (values and min(values) > self.p):
            p = min(values) if values else cfg.augment.initial
            return f"every image is moved and turned with p = {p:.2f}"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("p is too high for transforms that move or turn", "too few images, to which ADA answers with a high p")

    def changes(self, evidence: Evidence) -> Proposal:
        cfg = evidence.config
        if cfg is not None and isinstance(cfg.augment, ADA) and cfg.augment.heuristic == "fixed":
            yield setting("augment", "ADA", "p follows D's overfitting")
        else:
            yield setting("augment.most", 0.8, "p stays where transforms do not leak")


@dataclass(frozen=True)
class TooFewSeen(Symptom):
    """The run ends before D has seen each image."""

    name: ClassVar[str] = "few_seen"
    title: ClassVar[str] = "too few images seen"
    severity: ClassVar[Severity] = "mild"
    reads: ClassVar[tuple[str, ...]] = ("doctor/epochs",)
    source: ClassVar[str] = "own runs: the shortest recipes pass over their data several times"
    keeps: ClassVar[bool] = True
    at_end: ClassVar[bool] = True

    epochs: float = 1.0

    def seen(self, evidence: Evidence) -> str | None:
        epochs, progress = evidence.number("doctor/epochs"), evidence.progress
        if epochs is None or progress is None or progress < 1 or epochs >= self.epochs:
            return None
        return f"the run has ended, and D has seen {epochs:.0%} of the data"

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("total_kimg is short for this data",)

    def changes(self, evidence: Evidence) -> Proposal:
        epochs = evidence.number("doctor/epochs") or 1.0
        yield setting("total_kimg", float(round(5 * evidence.kimg / max(epochs, 1e-6))), "five passes over the data")
