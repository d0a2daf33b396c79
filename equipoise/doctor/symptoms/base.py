"""The interface of a symptom, and a symptom that was found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from equipoise.doctor.changes import Change, Proposal
from equipoise.doctor.evidence import Evidence

__all__ = ["WARM_UP", "Finding", "Severity", "Symptom", "warm"]

Severity = Literal["fatal", "serious", "mild"]
"""fatal: the run seldom recovers.  serious: its images suffer.  mild: it can be better."""

WARM_UP = 300
"""Updates of D before which a symptom of the generated images is not looked for: G begins with one grey image."""


class Symptom(ABC):
    """A way in which training goes wrong.

    name: word for `report.stop_on` and statistics ("symptom/NAME").
    title: a few words for people.
    severity: see `Severity`.
    reads: statistics and facts that are evidence.
    source: origin of the threshold.
    keeps: the weights are worth keeping, so that training can continue from them.
    at_end: it says something about a run that is over, and is not looked for while it trains.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    reads: ClassVar[tuple[str, ...]]
    source: ClassVar[str]
    keeps: ClassVar[bool] = False
    at_end: ClassVar[bool] = False

    @abstractmethod
    def seen(self, evidence: Evidence) -> str | None:
        """A sentence with the numbers that show the symptom; None if it is not there."""

    @abstractmethod
    def causes(self, evidence: Evidence) -> Sequence[str]:
        """Likely causes, the likeliest first."""

    @abstractmethod
    def changes(self, evidence: Evidence) -> Proposal:
        """Changes to try, in order. Changes that the config does not take are left out by the doctor."""


@dataclass(frozen=True)
class Finding:
    """A symptom that is there. evidence: what shows it.  causes: likeliest first.  changes: to try, in order."""

    symptom: Symptom
    evidence: str
    causes: tuple[str, ...]
    changes: tuple[Change, ...]


def warm(evidence: Evidence, updates: int = WARM_UP) -> bool:
    """Whether D has made at least `updates` updates."""
    if evidence.updates is not None:
        return evidence.updates >= updates
    return evidence.config is not None and evidence.kimg * 1000 >= updates * evidence.config.batch_size
