"""The Inception Score: does each image show a clear class, and do all images cover all classes? (Salimans et al. 2016)

The score ignores real data. One image per class gets the best score, and so may noise (Barratt & Sharma 2018). The name
belongs to the Inception network's probabilities. Scores from another classifier, such as the judge of digits, compare
only among themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

from .arrays import shuffled
from .base import Array, Better, Found, Metric, Number, Samples
from .classes import probabilities

__all__ = ["inception_score"]


def inception_score(p: ArrayLike | Tensor, splits: int = 10) -> tuple[float, float]:
    """exp(1/n Σ_i KL(p_i ‖ q)), q = 1/n Σ_i p_i, of each split, between 1 and K: their mean and standard deviation.

    p: class probabilities (N, K).
    splits: number of consecutive parts of the rows, whose sizes n differ by at most 1. As in the authors' code, the
        deviation divides by `splits`, not `splits` - 1, so it is 0 for 1 split.

    A part's score is at most n, so K classes need many more images than `splits` x K. Shuffle rows that are sorted by
    class: a part with a single class scores 1.

    Raises:
        ValueError: if p is not a matrix of distributions, or has fewer rows than splits.

    >>> inception_score([[1.0, 0.0], [0.0, 1.0]], splits=1)
    (2.0, 0.0)
    """
    p = probabilities(p)
    if splits < 1:
        raise ValueError(f"expected at least 1 split, got {splits}")
    if len(p) < splits:
        raise ValueError(f"{len(p)} images are too few for {splits} splits: give more images or fewer splits")
    scores = []
    for part in np.split(p, [i * len(p) // splits for i in range(1, splits)]):
        q = part.mean(axis=0)  # (n, K) -> (K,)
        ratio = np.divide(part, q, out=np.ones_like(part), where=part > 0)  # p log p is 0 at 0
        scores.append(np.exp((part * np.log(ratio)).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


@component
class Inception(Metric[Array, Array]):
    """exp of the mean KL of p(y given x) from p(y), over splits in random order (Salimans et al. 2016).

    The number beside it is for an equal number of real images.
    """

    name: ClassVar[str] = "is"
    better: ClassVar[Mapping[str, Better]] = {"inception_score": "higher"}
    spread: ClassVar[str | None] = "standard deviation over splits"

    splits: int = Field(default=10, ge=1)

    @property
    def least(self) -> tuple[int, int]:
        return self.splits, self.splits

    def ask(self, fake: Samples, real: Samples) -> tuple[Array, Array]:
        return fake.probabilities, real.probabilities

    def find(self, seed: int, fake: Array, real: Array) -> Found:
        p, q = shuffled(fake, seed), shuffled(real, seed)[: len(fake)]
        mean, std = inception_score(p, self.splits)
        return Found({"inception_score": Number(mean, std, inception_score(q, self.splits)[0])}, {"real": len(q)})
