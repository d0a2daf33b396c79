"""Symptoms of a game that does not settle: divergence, growing logits and bounds, oscillation, a run that got worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from equipoise.doctor.changes import Proposal, rate_at_start, scaled, setting, with_term
from equipoise.doctor.evidence import Evidence, Points, end

from .base import Severity, Symptom

__all__ = ["BoundGrows", "Diverged", "GotWorse", "LogitsGrow", "Oscillates"]

LOGITS = ("D/real", "D/fake")


@dataclass(frozen=True)
class Diverged(Symptom):
    """Logits or losses have left every range in which they mean something."""

    name: ClassVar[str] = "diverged"
    title: ClassVar[str] = "divergence"
    severity: ClassVar[Severity] = "fatal"
    reads: ClassVar[tuple[str, ...]] = (*LOGITS, "D/loss", "G/loss")
    source: ClassVar[str] = "in healthy runs of the recipes logits stay below 100"

    largest: float = 1e4
    factor: float = 100.0

    def seen(self, evidence: Evidence) -> str | None:
        for name in self.reads:
            values = evidence.last(name, 3)
            if not values or min(abs(v) for v in values) < self.largest:
                continue
            start = evidence.curve(name)[: max(1, len(evidence.curve(name)) // 4)]
            first = float(np.median([abs(v) for _, v in start]))
            if len(evidence.curve(name)) > 3 and abs(values[-1]) < self.factor * max(first, 1.0):
                continue  # large from the start: a matter of scale
            return f"{name} is {values[-1]:.3g}, and began near {first:.3g}"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("learning rates are too high", "nothing bounds D")

    def changes(self, evidence: Evidence) -> Proposal:
        cfg = evidence.config
        yield scaled(cfg, "d_optim.lr", 0.1, "smaller steps of D")
        yield scaled(cfg, "g_optim.lr", 0.1, "smaller steps of G")
        yield with_term(cfg, "R1(gamma=1)", "holds D's slope at real images")
        yield setting("d_normalizer", "SpectralNorm", "bounds each layer of D")


@dataclass(frozen=True)
class LogitsGrow(Symptom):
    """D's logits have grown for long: nothing holds them."""

    name: ClassVar[str] = "logits_grow"
    title: ClassVar[str] = "logits grow without end"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = LOGITS
    source: ClassVar[str] = "own runs: 50 is far beyond the logits of a D that can be wrong"

    largest: float = 50.0
    factor: float = 5.0

    def seen(self, evidence: Evidence) -> str | None:
        for name in LOGITS:
            grown = evidence.growth(name)
            if grown is not None and grown[1] > self.largest > self.factor * grown[0]:
                return f"{name} has grown to {end(evidence.curve(name)):.3g}, from {grown[0]:.3g}"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("nothing bounds D's slope", "D's learning rate is too high", "D has learned its images")

    def changes(self, evidence: Evidence) -> Proposal:
        yield with_term(evidence.config, "R1(gamma=1)", "holds D's slope at real images")
        yield setting("d_normalizer", "SpectralNorm", "bounds each layer of D")
        yield scaled(evidence.config, "d_optim.lr", 0.25, "smaller steps of D")


@dataclass(frozen=True)
class BoundGrows(Symptom):
    """The bound on D's Lipschitz constant, or a layer's spectral norm, keeps growing."""

    name: ClassVar[str] = "bound_grows"
    title: ClassVar[str] = "Lipschitz bound out of control"
    severity: ClassVar[Severity] = "mild"
    reads: ClassVar[tuple[str, ...]] = ("D/lipschitz", "D/real", "D/fake")
    source: ClassVar[str] = "growth of spectral norms comes before a collapse: Miyato et al. 2018; Brock et al. 2019"

    factor: float = 1000.0

    def seen(self, evidence: Evidence) -> str | None:
        points = evidence.curve("D/lipschitz")
        if len(points) < 10:
            return None
        first, now = points[len(points) // 4][1], end(points)
        if now > self.factor * max(first, 1.0) and rising(points) and logits_rise(evidence):
            return (
                f"the product of D's spectral norms is {now:.3g}, {now / max(first, 1e-12):.3g} times its early value"
            )
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("nothing bounds D's weights", "D's learning rate is too high")

    def changes(self, evidence: Evidence) -> Proposal:
        yield setting("d_normalizer", "SpectralNorm", "bounds each layer of D")
        yield with_term(evidence.config, "R1(gamma=1)", "holds D's slope at real images")
        yield scaled(evidence.config, "d_optim.lr", 0.25, "smaller steps of D")


def rising(points: Points) -> bool:
    """Whether the quarters of a curve have rising means."""
    quarter = len(points) // 4
    means = [float(np.mean([v for _, v in points[i * quarter : (i + 1) * quarter]])) for i in range(4)]
    return means == sorted(means) and means[0] < means[-1]


def logits_rise(evidence: Evidence) -> bool:
    """Whether the gap between D's mean logits has doubled since the run's first quarter."""
    real, fake = evidence.curve("D/real"), evidence.curve("D/fake")
    gaps = [(k, abs(a - b)) for (k, a), (_, b) in zip(real, fake, strict=False)]
    return len(gaps) >= 10 and end(gaps) > 2 * max(float(np.median([g for _, g in gaps[: len(gaps) // 4]])), 0.1)


@dataclass(frozen=True)
class Oscillates(Symptom):
    """D's logits swing with a steady period: the players circle around each other."""

    name: ClassVar[str] = "oscillates"
    title: ClassVar[str] = "oscillation"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("D/real", "D/fake", "D/loss")
    source: ClassVar[str] = (
        "autocorrelation above 0.5 at the period, three standard errors of 40 values; circling: Mescheder et al. 2018"
    )

    least: int = 40
    most: int = 512
    correlation: float = 0.5
    amplitude: float = 0.3

    def seen(self, evidence: Evidence) -> str | None:
        for name in self.reads:
            points = evidence.curve(name)
            points = points[len(points) // 3 :][-self.most :]
            if len(points) < self.least:
                continue
            found = swing(np.array([v for _, v in points]))
            if found is None or found.correlation < self.correlation or found.amplitude < self.amplitude:
                continue
            width = (points[-1][0] - points[0][0]) / (len(points) - 1)
            return f"{name} swings by ±{found.amplitude:.2g} with a period of {found.period * width:.3g} kimg"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("no penalty damps the game", "momentum (beta1) is too high", "learning rates are too high")

    def changes(self, evidence: Evidence) -> Proposal:
        yield with_term(evidence.config, "R1(gamma=1)", "damps the circling")
        if evidence.config is not None and hasattr(evidence.config.g_optim, "betas"):
            yield setting("g_optim.betas", "[0.0,0.99]", "without momentum")
            yield setting("d_optim.betas", "[0.0,0.99]", "without momentum")
        yield scaled(evidence.config, "g_optim.lr", 0.5, "smaller steps of G")


@dataclass(frozen=True)
class Swing:
    """A periodic part of a series. period: in values.  amplitude: √2 times its deviation."""

    period: int
    correlation: float
    amplitude: float


def swing(values: np.ndarray) -> Swing | None:
    """The swing of a series around its line: the first peak of the autocorrelation after it was negative."""
    n = len(values)
    x = np.arange(n)
    rest = values - np.polyval(np.polyfit(x, values, 1), x)
    power = float((rest**2).sum())
    if power < 1e-12:
        return None
    lags = np.array([float((rest[: n - k] * rest[k:]).sum()) / power * n / (n - k) for k in range(n // 3)])
    below = np.flatnonzero(lags < -0.2)
    if len(below) == 0 or below[0] < 2:  # a sign that changes at every value is noise of the average
        return None
    above = np.flatnonzero(lags[below[0] :] > 0)
    if len(above) == 0:
        return None
    up = int(below[0] + above[0])
    down = np.flatnonzero(lags[up:] < 0)
    peak = int(up + lags[up : up + int(down[0]) if len(down) else n].argmax())
    return Swing(peak, float(lags[peak]), float(rest.std() * 2**0.5))


@dataclass(frozen=True)
class GotWorse(Symptom):
    """The number that decides was better long before the end."""

    name: ClassVar[str] = "got_worse"
    title: ClassVar[str] = "the run has got worse"
    severity: ClassVar[Severity] = "serious"
    reads: ClassVar[tuple[str, ...]] = ("eval/...",)
    source: ClassVar[str] = "own runs: evaluations of 10,000 images differ by a few percent"
    keeps: ClassVar[bool] = True

    factor: float = 1.2

    def seen(self, evidence: Evidence) -> str | None:
        cfg = evidence.config
        settings = None if cfg is None else cfg.report.evaluation
        if settings is None:
            return None
        points = evidence.curve(f"eval/{settings.deciding}")
        if len(points) < 4:
            return None
        lower = settings.better[settings.deciding] == "lower"
        kimg, best = (min if lower else max)(points, key=lambda point: point[1])
        last = points[-1][1]
        worse = last > self.factor * best if lower else last < best / self.factor
        if kimg <= 0.75 * points[-1][0] and best > 0 and worse:
            return f"{settings.deciding} was {best:.4g} at {kimg:g} kimg and is {last:.4g} now; best/ holds the better"
        return None

    def causes(self, evidence: Evidence) -> Sequence[str]:
        return ("D has learned its images", "learning rates are too high for the end", "the players circle")

    def changes(self, evidence: Evidence) -> Proposal:
        cfg = evidence.config
        yield setting("augment", "ADA", "D sees more images")
        for key in ("g_optim.lr", "d_optim.lr") if cfg is not None else ():
            assert cfg is not None
            falling = f"Linear({rate_at_start(cfg, key):g},0.0,{float(cfg.total_kimg)})"
            yield setting(key, falling, "ends with small steps")
        yield with_term(cfg, "R1(gamma=10)", "a stronger penalty")
