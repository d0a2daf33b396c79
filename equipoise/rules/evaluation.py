"""Evaluation while a run trains, as a setting of the run."""

from __future__ import annotations

from pydantic import Field

from equipoise.core.types import component
from equipoise.data import DatasetConfig
from equipoise.data.base import PathLike
from equipoise.metrics.registry import parse_metrics

__all__ = ["Evaluate"]


@component
class Evaluate:
    """Measure the averaged generator every so many kimg and at the end, and keep the best one in the run's `best/`.

    It draws from a randomness of its own: the run trains as it does without. Every evaluation is a snapshot too.

    metrics: names, such as [frechet, pr], or with settings, as text: ["kid(subsets=50)"]. See `metrics.registry`.
    num, seed: how many images are drawn, and which.
    features: a feature network, "inception", "efficientnet_lite0", "digits" or "FILE.py:NAME"; weights: its file.
    against: data to compare with; None is the data that the run trains on, less what is held out.
    best: the number that decides which generator is kept; None is the first of the first metric.
    """

    every_kimg: float = Field(default=50, gt=0)
    metrics: tuple[str, ...] = ("frechet",)
    num: int = Field(default=10_000, ge=1)
    seed: int = Field(default=0, ge=0)
    features: str = "inception"
    weights: PathLike | None = None
    against: DatasetConfig | None = None
    best: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for unknown `metrics`, and a `best` that is none of their numbers. Name one of them."""
        if self.deciding not in self.better:
            raise ValueError(
                f"best={self.best!r} is none of the numbers that {', '.join(self.metrics)} give: name one of "
                f"{', '.join(self.better)}"
            )

    @property
    def better(self) -> dict[str, str]:
        """The numbers that the metrics give: "lower" or "higher"."""
        asked = parse_metrics(self.metrics, self.features).values()
        return {name: way for metric in asked for name, way in metric.better.items()}

    @property
    def deciding(self) -> str:
        """The name of the number that decides."""
        return next(iter(self.better)) if self.best is None else self.best
