"""Warnings about a run's files, speed, starts and config. How training goes is the doctor's matter."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from torch import nn

from equipoise.core.files import read_file
from equipoise.core.types import ImageSpec
from equipoise.doctor import discriminator_on_paper, voided_by
from equipoise.runs import LARGEST, Run, read_log

from .health import curve

__all__ = ["discriminator", "remarks"]


def discriminator(run: Run, spec: ImageSpec) -> nn.Module | None:
    """The run's D without numbers, on the meta device; None if it cannot be built there."""
    return discriminator_on_paper(run.config, spec)


def remarks(run: Run, D: nn.Module | None) -> list[str]:
    """Sentences about what is amiss, each with a remedy. D: see `discriminator`; None leaves its norms out."""
    found = [*of_log(run), *of_speed(run), *of_starts(run)]
    if D is not None:
        found += voided_by(run.config, D)
    return found


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


def of_speed(run: Run) -> Iterator[str]:
    """A speed that has fallen."""
    speed = [value for _, value in curve(run, "images_per_second")]
    quarter = len(speed) // 4
    if quarter >= 5 and median(speed[-quarter:]) < 0.5 * median(speed[quarter : 2 * quarter]):
        yield (
            f"The speed fell from {median(speed[quarter : 2 * quarter]):,.0f} to {median(speed[-quarter:]):,.0f} "
            "images a second: is the machine shared, or too hot? A run that grows its images slows down by itself."
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
