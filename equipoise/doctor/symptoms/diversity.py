"""Symptoms of what G makes: collapsed modes, ignored classes, memorised images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.doctor.changes import Proposal, scaled, setting, with_term
from equipoise.doctor.evidence import Evidence

from .base import Severity, Symptom, warm
from .weights import StepsTooLarge, StepsTooSmall

__all__ = ["ClassIgnored", "Collapsed", "Memorised"]

SLOW = 1000
"""Updates of D in which a G that has never been diverse may still begin slowly."""


@dataclass(frozen=True)
class Collapsed(Symptom):
    """G makes few different images, or covers few modes of the data."""

    name: ClassVar[str] = "collapsed"
    title: ClassVar[str] = "mode collapse"
    severity: ClassVar[Severity] = "fatal"
    reads: ClassVar[tuple[str, ...]] = (
        "doctor/diversity",
        "doctor/duplicates",
        "doctor/data_duplicates",
        "doctor/coverage",
        "doctor/precision",
        "deep/diversity",
        "deep/recall",
    )
    source: ClassVar[str] = "own runs: healthy ones keep 0.7 to 1.2 of the data's diversity after the start"

    diversity: float = 0.4
    rise: float = 1.2
    """Growth over three measurements from which G is not collapsed, but begins slowly."""
    duplicates: float = 0.5
    precision: float = 0.6
    coverage: float = 0.4

    def seen(self, evidence: Evidence) -> str | None:
        if not (warm(evidence) and (self.fell(evidence) or warm(evidence, SLOW))):
            return None
        spread = evidence.last("doctor/diversity", 3)
        rises = bool(spread) and spread[-1] > self.rise * spread[0] and spread[-1] < 1
        if spread and max(spread) < self.diversity and not rises:
            return f"generated images differ by {spread[-1]:.2f} of the distance between real ones"
        own, data = evidence.last("doctor/duplicates", 3), evidence.last("doctor/data_duplicates", 3)
        if own and data and not rises and all(a - b > self.duplicates for a, b in zip(own, data, strict=True)):
            return f"{own[-1]:.0%} of the generated images are near-duplicates, and {data[-1]:.0%} of the real ones"
        near = evidence.stays("doctor/precision", above=self.precision, count=3)
        if near and not rises and evidence.stays("doctor/coverage", below=self.coverage, count=3):
            covered = evidence.last("doctor/coverage")[0]
            return f"generated images lie near real ones, but reach only {covered:.0%} of them"
        recall, precision = evidence.facts.get("deep/recall"), evidence.facts.get("deep/precision")
        if recall is not None and precision is not None and recall < 0.05 and precision > 0.5:
            return f"recall is {recall:.2f} at a precision of {precision:.2f}"
        return None

    def fell(self, evidence: Evidence) -> bool:
        """Whether G's images have been diverse before."""
        spread, copies = evidence.curve("doctor/diversity"), evidence.curve("doctor/duplicates")
        once = max((v for _, v in spread), default=1.0) >= self.diversity
        return once and min((v for _, v in copies), default=0.0) < self.duplicates

    def causes(self, evidence: Evidence) -> Sequence[str]:
        cfg = evidence.config
        free = cfg is None or not any(term.of_gradient for term in cfg.terms)
        strong = evidence.stays("doctor/right", above=0.99)
        large, small = StepsTooLarge().sizes(evidence), StepsTooSmall().players(evidence)
        return (
            *(("D does not learn",) if "D" in small else ()),
            *(("learning rates are too high",) if large else ()),
            *(("nothing damps the game: no penalty on D's gradient",) if free else ()),
            *(("D is too strong",) if strong else ()),
            *(() if large else ("learning rates are too high",)),
            "D cannot compare the images of a batch",
        )

    def changes(self, evidence: Evidence) -> Proposal:
        yield from StepsTooSmall().changes(evidence)
        yield from StepsTooLarge().changes(evidence)
        yield with_term(evidence.config, "R1(gamma=1)", "damps the game")
        yield scaled(evidence.config, "g_optim.lr", 0.25, "smaller steps of G")
        yield scaled(evidence.config, "d_optim.lr", 0.25, "smaller steps of D")
        yield setting("head.san", "true", "D's direction separates the two distributions best")


@dataclass(frozen=True)
class ClassIgnored(Symptom):
    """G makes the same image of a z for every class."""

    name: ClassVar[str] = "class_ignored"
    title: ClassVar[str] = "G ignores the class"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/class_effect",)
    source: ClassVar[str] = "own runs: a G that follows its classes changes an image by 0.4 to 1 of another z's change"

    effect: float = 0.1

    def seen(self, evidence: Evidence) -> str | None:
        if warm(evidence) and evidence.stays("doctor/class_effect", below=self.effect, count=3):
            value = evidence.last("doctor/class_effect")[0]
            return f"another class changes an image by {value:.2f} of the change by another z"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("labels say nothing about the images", "D does not judge the class", "G's conditioning is too weak")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("head.conditioning", "Projection", "D judges image and class together (Miyato & Koyama 2018)")
        yield setting("head.conditioning", "Auxiliary", "D names the class, and G is judged by it")


@dataclass(frozen=True)
class Memorised(Symptom):
    """Generated images are copies of training images."""

    name: ClassVar[str] = "memorised"
    title: ClassVar[str] = "G has memorised images"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("deep/to_training", "deep/held_out_to_training")
    source: ClassVar[str] = "Meehan et al. 2020: generated images nearer to the training images than held-out ones are"

    ratio: float = 0.5

    def seen(self, evidence: Evidence) -> str | None:
        made, other = evidence.facts.get("deep/to_training"), evidence.facts.get("deep/held_out_to_training")
        if made is None or other is None or made >= self.ratio * other:
            return None
        return f"the nearest training image is at {made:.3g}, and at {other:.3g} for other real images"

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("too few images", "G is large for the data, and trained for long", "D has learned its images")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("augment", "ADA", "D sees more images than there are")
        yield setting("data.mirror", "true", "twice the images, where a mirrored image is one")
        if evidence.config is not None:
            yield setting("total_kimg", evidence.config.total_kimg / 4, "stop earlier")
