"""Evidence about a run: its statistics as curves, its config, and numbers that were measured once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import mean, median
from typing import Self

from equipoise.config import TrainConfig

__all__ = ["Evidence", "Points", "curves_of", "end"]

Points = list[tuple[float, float]]
"""Values of a statistic over thousands of images, oldest first."""

SHARE = 0.1
"""Share of a curve's values that its end consists of."""


@dataclass(frozen=True)
class Evidence:
    """The evidence that symptoms read.

    curves: values of each statistic over kimg, by name.
    config: settings of the run; None for a training loop of one's own.
    facts: numbers that were measured once, such as by `equipoise doctor --deep`, by name.
    updates: updates of D that have been made; None: they follow from the config.
    """

    curves: Mapping[str, Points]
    config: TrainConfig | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    updates: int | None = None

    @classmethod
    def of(
        cls,
        lines: Iterable[Mapping[str, float]],
        config: TrainConfig | None = None,
        facts: Mapping[str, float] | None = None,
    ) -> Self:
        """Evidence from the lines of a stats.jsonl, oldest first."""
        return cls(curves_of(lines), config, facts or {})

    @property
    def kimg(self) -> float:
        """Thousands of images seen."""
        return max((points[-1][0] for points in self.curves.values() if points), default=0.0)

    @property
    def progress(self) -> float | None:
        """The share of the run's length that is over; None where no length is given."""
        return None if self.config is None else self.kimg / self.config.total_kimg

    def until(self, kimg: float) -> Evidence:
        """The evidence that was there after `kimg` thousand images."""
        before = {name: [p for p in points if p[0] <= kimg] for name, points in self.curves.items()}
        return replace(self, curves={name: points for name, points in before.items() if points})

    def curve(self, name: str) -> Points:
        """The values of a statistic; empty without them."""
        return self.curves.get(name, [])

    def last(self, name: str, count: int = 1) -> list[float]:
        """The last `count` values of a statistic; empty if there are fewer."""
        points = self.curve(name)
        return [value for _, value in points[-count:]] if len(points) >= count else []

    def number(self, name: str) -> float | None:
        """A fact by its name, or else the last value of the statistic; None without either."""
        if name in self.facts:
            return self.facts[name]
        points = self.curve(name)
        return points[-1][1] if points else None

    def stays(self, name: str, *, above: float | None = None, below: float | None = None, count: int = 2) -> bool:
        """Whether the last `count` values are all above, or all below, a limit. False with fewer values."""
        values = self.last(name, count)
        if not values:
            return False
        return all((above is None or v > above) and (below is None or v < below) for v in values)

    def growth(self, name: str, least: int = 20) -> tuple[float, float] | None:
        """Sizes of a statistic: the median of its first quarter, and the mean of its end. None below `least` values."""
        points = self.curve(name)
        if len(points) < least:
            return None
        return median(abs(v) for _, v in points[: len(points) // 4]), abs(end(points))


def curves_of(lines: Iterable[Mapping[str, float]]) -> dict[str, Points]:
    """The values of each statistic over kimg."""
    curves: dict[str, Points] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("nimg", "kimg"):
                curves.setdefault(name, []).append((line["kimg"], value))
    return curves


def end(points: Points) -> float:
    """The mean of the last values of a curve."""
    return mean(value for _, value in points[-max(3, round(SHARE * len(points))) :])
