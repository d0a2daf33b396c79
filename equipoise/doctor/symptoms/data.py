"""Symptoms of the data: images that are constant, dim, or there twice, and classes without images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from equipoise.doctor.changes import Proposal, setting
from equipoise.doctor.evidence import Evidence

from .base import Severity, Symptom

__all__ = ["DataTrouble"]


@dataclass(frozen=True)
class DataTrouble(Symptom):
    """The data are not what they seem: constant images, copies, a part of the range of values, empty classes."""

    name: ClassVar[str] = "data"
    title: ClassVar[str] = "trouble in the data"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = (
        "doctor/data_constant",
        "doctor/data_copies",
        "doctor/data_range",
        "doctor/data_empty",
    )
    source: ClassVar[str] = "photographs use nearly all 256 values; folders in use hold under 5 % of copies"

    constant: float = 0.05
    copies: float = 0.2
    range: float = 0.25

    def seen(self, evidence: Evidence) -> str | None:
        constant, copies, width, empty = (evidence.number(name) for name in self.reads)
        trouble = []
        if constant is not None and constant > self.constant:
            trouble.append(f"{constant:.0%} of the images are of one colour")
        elif width is not None and width < self.range:
            trouble.append(f"all values lie within {width:.0%} of the range")
        if copies is not None and copies > self.copies and (constant is None or constant < 0.5):
            trouble.append(f"{copies:.0%} of the images looked at are copies of another")
        if empty is not None and empty > 0:
            trouble.append(f"{empty:.0f} classes have no image")
        return "; ".join(trouble) or None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        constant, copies, width, _ = (evidence.number(name) or 0.0 for name in self.reads)
        found = {
            "files were damaged or decoded wrongly": constant > self.constant,
            "values were scaled twice": 0 < width < self.range and constant <= self.constant,
            "the folder holds files twice": copies > self.copies and constant < 0.5,
            "labels do not belong to these images": True,
        }
        return [cause for cause, likely in found.items() if likely]

    def changes(self, evidence: Evidence) -> Proposal:
        if (evidence.number("doctor/data_copies") or 0) > self.copies:
            yield setting("augment", "ADA", "for as few different images as there are")
