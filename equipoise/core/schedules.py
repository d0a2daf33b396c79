"""Schedules: numbers that change during training, as pure functions of images seen. No state to save or restore."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from .types import component

__all__ = ["After", "Cosine", "Linear", "Schedule", "Steps", "at"]


def gives_numbers(schedule: Callable[[int], float]) -> Callable[[int], float]:
    """Raise ValueError for a callable that is not a schedule, such as a component of another kind."""
    try:
        value = float(schedule(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected a number, or a function from images seen to one, got {schedule!r}") from error
    if not 0 <= value < math.inf:
        raise ValueError(f"expected a schedule of numbers that are not negative, got {value} from {schedule!r}")
    return schedule


Schedule = Annotated[float, Field(ge=0)] | Annotated[Callable[[int], float], AfterValidator(gives_numbers)]
"""A constant >= 0, or a function nimg -> value; nimg counts the real images shown to D."""


def at(schedule: Schedule, nimg: int) -> float:
    """The value of `schedule` after `nimg` images."""
    return schedule(nimg) if callable(schedule) else schedule


@component
class Linear:
    """A straight line from `start` to `end` over the first `kimg` thousand images, then constant."""

    start: float
    end: float
    kimg: float = Field(gt=0)

    def __call__(self, nimg: int) -> float:
        t = min(nimg / (self.kimg * 1000), 1.0)
        return self.start + (self.end - self.start) * t


@component
class Cosine:
    """Half a cosine from `start` to `end` over the first `kimg` thousand images, then constant."""

    start: float
    end: float
    kimg: float = Field(gt=0)

    def __call__(self, nimg: int) -> float:
        t = min(nimg / (self.kimg * 1000), 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * t)) / 2


@component
class After:
    """Delay `schedule` by `kimg` thousand images. Until then it keeps its initial value."""

    schedule: Schedule
    kimg: float = Field(gt=0)

    def __call__(self, nimg: int) -> float:
        return at(self.schedule, max(0, nimg - round(self.kimg * 1000)))


@component
class Steps:
    """`start`, then the value of the last of `steps` whose kimg have been passed: pairs (kimg, value), kimg ascending.

    Raises:
        ValueError: if the kimg of `steps` do not ascend.
    """

    start: float
    steps: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        """Raises ValueError for `steps` whose kimg do not ascend. Name each number of images once, in order."""
        if any(earlier >= later for (earlier, _), (later, _) in pairwise(self.steps)):
            raise ValueError(
                f"steps={self.steps} must have ascending kimg, each once, such as 'steps=[[4200,1.5e-3],[5400,2e-3]]'"
            )

    def __call__(self, nimg: int) -> float:
        return [self.start, *(value for kimg, value in self.steps if nimg > kimg * 1000)][-1]
