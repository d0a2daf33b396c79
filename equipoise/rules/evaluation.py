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
    """Measure the averaged generator every `every_kimg` kimg and at the end; keep the best one in the run's `best/`.

    Evaluation has its own random stream, so the run trains as it would without. Every evaluation is a snapshot too.

    metrics: names, such as [frechet, pr], or with settings, as text: ["kid(subsets=50)"]. See `metrics.registry`.
    num: number of images to generate.
    seed: seed of their latents.
    features: a feature network, "inception", "efficientnet_lite0", "digits", "cells", "colours" or
        "FILE.py:NAME".
    weights: file or folder of the feature network's weights; None: the cache, or a download.
    against: data to compare with; None: the training data, without held-out images.
    best: the number that decides which generator is kept; None: the first number of the first metric.
    every_kimg: thousands of images between two evaluations.
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
                f"best={self.best!r} is not a number that {', '.join(self.metrics)} report: name one of "
                f"{', '.join(self.better)}"
            )

    @property
    def better(self) -> dict[str, str]:
        """Names of the numbers that the metrics report, with the better direction: "lower" or "higher"."""
        asked = parse_metrics(self.metrics, self.features).values()
        return {name: way for metric in asked for name, way in metric.directions(self.features).items()}

    @property
    def deciding(self) -> str:
        """The name of the number that decides."""
        return next(iter(self.better)) if self.best is None else self.best
