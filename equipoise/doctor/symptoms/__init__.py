"""Symptoms: each says what shows it, its likely causes, and the changes to try."""

from .balance import Overfits, Saturated, TooStrong, TooWeak, Vanishes
from .base import Finding, Severity, Symptom
from .data import DataTrouble
from .diversity import ClassIgnored, Collapsed, Memorised
from .settings import AugmentAtLimit, AugmentLeaks, AverageTooLong, ScheduleEnded, TooFewSeen
from .stability import BoundGrows, Diverged, GotWorse, LogitsGrow, Oscillates
from .weights import DeadUnits, NormsMisfit, StepsTooLarge, StepsTooSmall

__all__ = [
    "AugmentAtLimit",
    "AugmentLeaks",
    "AverageTooLong",
    "BoundGrows",
    "ClassIgnored",
    "Collapsed",
    "DataTrouble",
    "DeadUnits",
    "Diverged",
    "Finding",
    "GotWorse",
    "LogitsGrow",
    "Memorised",
    "NormsMisfit",
    "Oscillates",
    "Overfits",
    "Saturated",
    "ScheduleEnded",
    "Severity",
    "StepsTooLarge",
    "StepsTooSmall",
    "Symptom",
    "TooFewSeen",
    "TooStrong",
    "TooWeak",
    "Vanishes",
]
