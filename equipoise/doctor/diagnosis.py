"""The doctor: symptoms that the evidence shows, the moments at which each began and ended, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from equipoise.config import TrainConfig

from .changes import Change, allowed, resumes
from .evidence import Evidence
from .symptoms import (
    AugmentAtLimit,
    AugmentLeaks,
    AverageTooLong,
    BoundGrows,
    ClassIgnored,
    Collapsed,
    DataTrouble,
    DeadUnits,
    Diverged,
    Finding,
    GotWorse,
    LogitsGrow,
    Memorised,
    NormsMisfit,
    Oscillates,
    Overfits,
    Saturated,
    ScheduleEnded,
    StepsTooLarge,
    StepsTooSmall,
    Symptom,
    TooFewSeen,
    TooStrong,
    TooWeak,
    Vanishes,
)

__all__ = ["PREFIX", "SYMPTOMS", "Course", "Turn", "command", "course", "examine", "of_config", "turns"]

SYMPTOMS: tuple[Symptom, ...] = (
    DataTrouble(),
    Diverged(),
    StepsTooLarge(),
    Vanishes(),
    Saturated(),
    StepsTooSmall(),
    Collapsed(),
    DeadUnits(),
    Overfits(),
    TooStrong(),
    TooWeak(),
    LogitsGrow(),
    BoundGrows(),
    Oscillates(),
    ClassIgnored(),
    Memorised(),
    NormsMisfit(),
    AverageTooLong(),
    AugmentLeaks(),
    AugmentAtLimit(),
    ScheduleEnded(),
    GotWorse(),
    TooFewSeen(),
)
"""Every symptom. Those that bring others about come first."""

PREFIX = "symptom/"
"""Prefix of the statistics that tell the course of symptoms."""


def examine(evidence: Evidence) -> list[Finding]:
    """The symptoms that the evidence shows: causes before consequences, and mild ones last."""
    found = []
    for symptom in SYMPTOMS:
        seen = symptom.seen(evidence)
        if seen is not None:
            changes = allowed(symptom.changes(evidence), evidence.config)
            found.append(Finding(symptom, seen, tuple(symptom.causes(evidence)), tuple(changes)))
    return sorted(found, key=lambda finding: finding.symptom.severity == "mild")


class Turn(NamedTuple):
    """A symptom that begins or ends. finding: None where it ends."""

    symptom: Symptom
    finding: Finding | None


def turns(evidence: Evidence, before: Sequence[float]) -> list[Turn]:
    """The symptoms that begin or end now.

    Which are under way is read from the statistics "symptom/NAME": 1 at a beginning, 0 at an end. A symptom ends when
    it is found neither now nor at any of the earlier times `before`, in kimg.
    """
    active = {symptom.name for symptom in SYMPTOMS if evidence.number(PREFIX + symptom.name) == 1}
    now = {f.symptom.name: f for f in examine(evidence) if not f.symptom.at_end}
    found = [Turn(finding.symptom, finding) for name, finding in now.items() if name not in active]
    if active - now.keys():
        earlier = [evidence.until(kimg) for kimg in before]
        gone = (s for s in SYMPTOMS if s.name in active - now.keys())
        over = (symptom for symptom in gone if all(symptom.seen(then) is None for then in earlier))
        found += [Turn(symptom, None) for symptom in over]
    return found


class Course(NamedTuple):
    """A symptom of a run: kimg at which it began, and at which it ended, or None."""

    symptom: Symptom
    begun: float
    ended: float | None


def course(evidence: Evidence) -> Iterator[Course]:
    """The symptoms that were noted while the run trained, in the order of `SYMPTOMS`."""
    for symptom in SYMPTOMS:
        begun: float | None = None
        for kimg, value in evidence.curve(PREFIX + symptom.name):
            if value == 1 and begun is None:
                begun = kimg
            elif value == 0 and begun is not None:
                yield Course(symptom, begun, kimg)
                begun = None
        if begun is not None:
            yield Course(symptom, begun, None)


def command(finding: Finding, run: str, changes: Sequence[Change] | None = None, recipe: str | None = None) -> str:
    """The command that tries the first change of a finding; empty without a change.

    It resumes the run where that is possible. Otherwise it begins a new run: from the weights where they are worth
    keeping, else anew.
    """
    tried = list(finding.changes[:1] if changes is None else changes)
    if not tried:
        return ""
    words = [shlex.quote(f"{run}/config.txt"), shlex.quote(run if all(map(resumes, tried)) else f"{run}-2")]
    words += [change.pasted for change in tried]
    if not all(map(resumes, tried)) and finding.symptom.keeps:
        words.append(shlex.quote(f"start=Transfer(run='{run}')"))
    if recipe is not None:
        words += ["--recipe", shlex.quote(recipe)]
    return " ".join(["equipoise train", *words])


def of_config(cfg: TrainConfig, facts: Mapping[str, float]) -> list[Finding]:
    """Symptoms that a config shows before it runs. facts: measured of its data."""
    return examine(Evidence({}, cfg, facts))
