"""Symptoms of weights and layers: steps of the wrong size, dead units, running statistics that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import ClassVar

from equipoise.core.schedules import at
from equipoise.doctor.changes import Proposal, scaled, setting
from equipoise.doctor.evidence import Evidence

from .base import Severity, Symptom, warm

__all__ = ["NO_GRADIENT", "DeadUnits", "NormsMisfit", "StepsTooLarge", "StepsTooSmall"]

NO_GRADIENT = 1e-6
"""Norm of G's gradient at an image, below which it is as good as zero. Adam's eps is 1e-8 for each of its numbers."""


@dataclass(frozen=True)
class StepsTooLarge(Symptom):
    """An update moves a layer by a large part of its weights.

    Steps that are far too large blow the weights up, and are small beside them later. So the first step of a run counts
    for as long as it trains.
    """

    name: ClassVar[str] = "steps_large"
    title: ClassVar[str] = "steps are too large"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/step_D", "doctor/step_G", "doctor/first_step_D", "doctor/first_step_G")
    source: ClassVar[str] = "healthy runs of the recipes stay below 0.05; about 1e-3 is usual (Karpathy 2015, CS231n)"

    ratio: float = 0.15
    first: float = 0.5

    def sizes(self, evidence: Evidence) -> dict[str, float]:
        """The players whose steps are too large, with the largest of them."""
        found, cfg = {}, evidence.config
        for player in "DG":
            held = player == "D" and cfg is not None and cfg.constraints  # they set the size of D's weights
            begun = 0.0 if held else evidence.number(f"doctor/first_step_{player}") or 0.0
            if evidence.stays(f"doctor/step_{player}", above=self.ratio):
                found[player] = max(begun, *evidence.last(f"doctor/step_{player}", 2))
            elif begun > self.first:
                found[player] = begun
        return found

    def seen(self, evidence: Evidence) -> str | None:
        told = (f"an update of {p} moves its median layer by {v:.2g} of it" for p, v in self.sizes(evidence).items())
        return "; ".join(told) or None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return (f"the learning rate of {' and '.join(self.sizes(evidence))} is too high", "the weights began too small")

    def changes(self, evidence: Evidence) -> Proposal:
        for player, size in self.sizes(evidence).items():
            factor = min(10.0 ** round(log10(0.02 / size)), 0.1)
            yield scaled(evidence.config, f"{player.lower()}_optim.lr", factor, f"smaller steps of {player}")


@dataclass(frozen=True)
class StepsTooSmall(Symptom):
    """A player hardly moves, though its learning rate has not ended."""

    name: ClassVar[str] = "steps_small"
    title: ClassVar[str] = "steps are too small"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/step_D", "doctor/step_G")
    source: ClassVar[str] = "a weight that moves by 1e-6 of itself an update stays where it is for a million updates"
    keeps: ClassVar[bool] = True

    ratio: float = 1e-6

    def players(self, evidence: Evidence) -> list[str]:
        """The players that hardly move."""
        still = (p for p in "DG" if evidence.stays(f"doctor/step_{p}", below=self.ratio))
        return [player for player in still if not over(evidence, player)]

    def seen(self, evidence: Evidence) -> str | None:
        sizes = {player: evidence.last(f"doctor/step_{player}")[0] for player in self.players(evidence)}
        told = (f"an update of {p} moves its median layer by {v:.2g} of it" for p, v in sizes.items())
        return "; ".join(told) or None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        slow = f"the learning rate of {' and '.join(self.players(evidence))} is too low"
        return ("no gradient reaches it", slow) if gone(evidence) else (slow, "no gradient reaches it")

    def changes(self, evidence: Evidence) -> Proposal:
        for player in self.players(evidence):
            if player == "G" and gone(evidence):  # larger steps do not bring the gradient back
                continue
            key, rate = f"{player.lower()}_optim.lr", rate_of(evidence, player)
            if rate is not None and rate < 1e-5:
                yield setting(key, 2e-4, "a usual rate")
            else:
                yield scaled(evidence.config, key, 10.0, f"larger steps of {player}")


def gone(evidence: Evidence) -> bool:
    """Whether G's gradient is as good as zero."""
    return evidence.stays("doctor/grad_G", below=NO_GRADIENT)


def rate_of(evidence: Evidence, player: str, kimg: float | None = None) -> float | None:
    """The learning rate of a player now, or after `kimg`; None without a config or a rate."""
    if evidence.config is None:
        return None
    optim = evidence.config.d_optim if player == "D" else evidence.config.g_optim
    rate = getattr(optim, "lr", None)
    return None if rate is None else float(at(rate, round((evidence.kimg if kimg is None else kimg) * 1000)))


def over(evidence: Evidence, player: str) -> bool:
    """Whether the schedule of a learning rate has come to its end: under a thousandth of its start."""
    now, first = rate_of(evidence, player), rate_of(evidence, player, 0.0)
    return now is not None and first is not None and now < 1e-3 * first


@dataclass(frozen=True)
class DeadUnits(Symptom):
    """Units that give one number for every image."""

    name: ClassVar[str] = "dead_units"
    title: ClassVar[str] = "dead units"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/dead_D", "doctor/dead_G")
    source: ClassVar[str] = "own runs: at most a fifth of a layer is constant over 64 images"

    share: float = 0.8

    def seen(self, evidence: Evidence) -> str | None:
        for player in "DG":
            if evidence.stays(f"doctor/dead_{player}", above=self.share, count=3) and warm(evidence):
                value = evidence.last(f"doctor/dead_{player}")[0]
                return f"{value:.0%} of the units of a layer of {player} give one number for all images"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("a learning rate that was too high has killed them", "the images are all the same")

    def changes(self, evidence: Evidence) -> Proposal:
        yield scaled(evidence.config, "d_optim.lr", 0.25, "smaller steps of D")
        yield scaled(evidence.config, "g_optim.lr", 0.25, "smaller steps of G")


@dataclass(frozen=True)
class NormsMisfit(Symptom):
    """The running statistics of the averaged generator do not fit the maps of its own weights."""

    name: ClassVar[str] = "norms_misfit"
    title: ClassVar[str] = "norm statistics do not fit the average"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("doctor/norms", "deep/norms")
    source: ClassVar[str] = (
        "standing statistics of the recipes' generators: misfits below 0.2; Brock et al. 2019, app. B"
    )
    keeps: ClassVar[bool] = True

    misfit: float = 1.0

    def seen(self, evidence: Evidence) -> str | None:
        fact = evidence.facts.get("deep/norms")
        if fact is not None and fact > self.misfit:
            return f"a layer's mean and deviation are off by {fact:.2g} deviations"
        if evidence.stays("doctor/norms", above=self.misfit):
            return f"a layer's mean and deviation are off by {evidence.last('doctor/norms')[0]:.2g} deviations"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("the average of the weights kept the statistics of other weights", "the statistics were not saved")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("ema.rampup", 0.05, "early weights leave the average sooner")
