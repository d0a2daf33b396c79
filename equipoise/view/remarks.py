"""Warnings about a run, from its statistics, its config and the record of its starts."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median

import torch
from torch import nn

from equipoise.core.files import read_file
from equipoise.core.types import ImageSpec
from equipoise.doctor import voided
from equipoise.runs import LARGEST, Run, read_log

from .curves import Points
from .health import curve

__all__ = ["discriminator", "remarks"]

SHARE = 0.1
"""Share of a curve's lines that its end consists of."""
SURE = 0.98
"""Mean sign of logits on real images from which on D is said to be sure of all of them."""


def discriminator(run: Run, spec: ImageSpec) -> nn.Module | None:
    """The run's D without numbers, on the meta device; None if it cannot be built there."""
    cfg = run.config
    try:
        with torch.device("meta"):
            return cfg.head.build(cfg.discriminator.build, spec)
    except (ValueError, RuntimeError, TypeError, NotImplementedError):  # needs classes, or numbers
        return None


def remarks(run: Run, D: nn.Module | None) -> list[str]:
    """Sentences about what is amiss, each with a remedy. D: see `discriminator`; None leaves its norms out."""
    cfg = run.config
    found = [*of_log(run), *of_training(run), *of_measures(run), *of_starts(run)]
    if D is not None:
        found += voided(D, loss=cfg.loss, terms=cfg.terms, normalizer=cfg.d_normalizer, constraints=cfg.constraints)
    return found


def end(points: Points) -> float:
    """The mean of the last values of a curve."""
    return mean(value for _, value in points[-max(3, round(SHARE * len(points))) :])


def of_log(run: Run) -> Iterator[str]:
    """Missing and damaged statistics, and a run that has not reached its end."""
    if not run.stats:
        yield "There are no statistics yet: the run has not reached its first line of stats.jsonl (report.log_kimg)."
        return
    path = run.folder / "stats.jsonl"
    content = read_file(path, LARGEST)
    log = read_log(content[: content.rfind(b"\n") + 1])
    if log.damaged:
        yield f"{log.described()} of stats.jsonl left out."
    seen, total = run.stats[-1]["kimg"], run.config.total_kimg
    if seen < total:
        yield (
            f"The run is not finished: {seen:g} of {total:g} kimg. If it does not train now, the same command resumes "
            "it."
        )


def of_training(run: Run) -> Iterator[str]:
    """Signs of a D that has won, of logits that grow, and of a speed that has fallen."""
    signs = curve(run, "D/sign_real")
    if run.config.loss.signed and len(signs) >= 10 and end(signs) > SURE:
        yield (
            f"D calls nearly all real images real (D/sign_real is {end(signs):.2f} at the end): it has learned them, "
            "or generated images are far off. With few images add an augmentation (augment=ADA); else strengthen a "
            "penalty ('terms=[R1(gamma=10)]') or lower d_optim.lr."
        )
    for name in ("D/real", "D/fake"):
        points = curve(run, name)
        if len(points) >= 20 and abs(end(points)) > 50 > 5 * median(abs(v) for _, v in points[: len(points) // 4]):
            yield (
                f"{name} has grown to {end(points):.3g}: nothing holds D's logits. Add 'terms=[R1]' or "
                "d_normalizer=SpectralNorm in a new run."
            )
    speed = [value for _, value in curve(run, "images_per_second")]
    quarter = len(speed) // 4
    if quarter >= 5 and median(speed[-quarter:]) < 0.5 * median(speed[quarter : 2 * quarter]):
        yield (
            f"The speed fell from {median(speed[quarter : 2 * quarter]):,.0f} to {median(speed[-quarter:]):,.0f} "
            "images a second: is the machine shared, or too hot? A run that grows its images slows down by itself."
        )


def of_measures(run: Run) -> Iterator[str]:
    """A number that decides and that was better long before the end."""
    settings = run.config.report.evaluation
    if settings is None:
        return
    points = curve(run, f"eval/{settings.deciding}")
    if len(points) < 4:
        return
    lower = settings.better[settings.deciding] == "lower"
    kimg, best = (min if lower else max)(points, key=lambda point: point[1])
    last = points[-1][1]
    worse = last > 1.2 * best if lower else last < best / 1.2
    if kimg <= 0.75 * points[-1][0] and best > 0 and worse:
        yield (
            f"{settings.deciding} was {best:.4g} at {kimg:g} kimg and is {last:.4g} now: the run has got worse. "
            f"{run.folder / 'best'} holds the better generator."
        )


def of_starts(run: Run) -> Iterator[str]:
    """Starts with other numbers of threads, which round differently."""
    path = run.folder / "environment.txt"
    try:
        lines = read_file(path, 1 << 26).decode().splitlines()
    except (OSError, ValueError):
        return
    threads = list(dict.fromkeys(line for line in lines if line.startswith("threads: ")))
    if len(threads) > 1 and "device: cpu" in lines:
        counts = ", ".join(line.removeprefix("threads: ") for line in threads)
        yield f"The run was started with {counts} threads: it differs from an uninterrupted one in the last digits."
