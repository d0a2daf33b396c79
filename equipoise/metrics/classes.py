"""Metrics on a classifier's probabilities: are generated images recognisable, varied, and of the right class?

p is (N, K) everywhere: row i holds the K class probabilities of image i. It may be an array or a tensor, and sums run
in float64. Every function raises ValueError for any other matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equipoise.core.types import component

from .arrays import array
from .base import Array, Better, Found, Labels, Metric, Number, Samples

__all__ = ["class_agreement", "effective_classes", "mean_top_probability"]


def mean_top_probability(p: ArrayLike | Tensor) -> float:
    """1/N Σ_i max_k p_ik, between 1/K and 1: the classifier's mean confidence in its choice.

    >>> mean_top_probability([[0.9, 0.1], [0.3, 0.7]])
    0.8
    """
    return float(probabilities(p).max(axis=1).mean())


def effective_classes(p: ArrayLike | Tensor) -> float:
    """exp(H(q)) with q = 1/N Σ_i p_i and H in nats, between 1 and K: effective number of classes among the images.

    It is the marginal half of the Inception Score (Salimans et al. 2016), which is exp(H(q) - 1/N Σ_i H(p_i)). It is K
    only if all classes are equally frequent, so data with uneven classes have a lower value. Read it beside
    `mean_top_probability`: if the classifier is unsure of every image, q spreads over all classes too.

    >>> effective_classes([[1.0, 0.0], [1.0, 0.0]])
    1.0
    """
    q = probabilities(p).mean(axis=0)  # (N, K) -> (K,)
    q = q[q > 0]  # x log x is 0 at 0
    return float(np.exp(-(q * np.log(q)).sum()))


def class_agreement(p: ArrayLike | Tensor, y: ArrayLike | Tensor) -> float:
    """1/N Σ_i [argmax_k p_ik = y_i]: the share of images that are classified as the requested class, y (N,).

    >>> class_agreement([[0.9, 0.1], [0.3, 0.7]], [0, 0])
    0.5
    """
    p, y = probabilities(p), array(y)
    if y.shape != (len(p),) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"expected y as {len(p)} integer class ids, one per row of p, got {y.dtype} of shape {y.shape}"
        )
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"p has classes 0 to {p.shape[1] - 1}, but y holds {y.min()} to {y.max()}")
    return float((p.argmax(axis=1) == y).mean())


def probabilities(p: ArrayLike | Tensor) -> NDArray[np.float64]:
    """`p` in float64. Raises ValueError unless its rows are distributions."""
    p = array(p).astype(np.float64)
    if p.ndim != 2 or 0 in p.shape:
        raise ValueError(f"expected class probabilities of shape (N, K), N and K at least 1, got shape {p.shape}")
    if not np.isfinite(p).all():
        bad = (~np.isfinite(p)).any(axis=1)
        raise ValueError(f"{bad.sum()} of {len(p)} rows of p hold NaN or Inf, the first is row {bad.argmax()}")
    if (p < 0).any() or not np.allclose(p.sum(axis=1), 1, rtol=0, atol=1e-3):
        raise ValueError("rows of p must be non-negative and sum to 1; if these are logits, pass logits.softmax(1)")
    return p


class Classified(NamedTuple):
    """Class probabilities of images, with the requested classes.

    probabilities: (N, K).
    labels: (N,) requested classes, or None.
    num_classes: number of classes of the labels.
    """

    probabilities: Array
    labels: Labels | None
    num_classes: int

    @property
    def agreement(self) -> float | None:
        """`class_agreement`; None without labels, or if their classes are not the classifier's."""
        if self.labels is None or self.num_classes != self.probabilities.shape[1]:
            return None
        return class_agreement(self.probabilities, self.labels)


@component
class Classes(Metric[Classified, Classified]):
    """Classes as a classifier sees them: effective number, mean confidence, agreement with the requested class.

    They are exp of the entropy of the mean p(y), the mean largest p, and the share of images that are classified as
    the requested class.
    """

    name: ClassVar[str] = "classes"
    better: ClassVar[Mapping[str, Better]] = {
        "effective_classes": "higher",
        "top_probability": "higher",
        "agreement": "higher",
    }
    least: ClassVar[tuple[int, int]] = (1, 1)

    def ask(self, fake: Samples, real: Samples) -> tuple[Classified, Classified]:
        return (
            Classified(fake.probabilities, fake.labels, fake.num_classes),
            Classified(real.probabilities, real.labels, real.num_classes),
        )

    def find(self, seed: int, fake: Classified, real: Classified) -> Found:  # noqa: ARG002
        p, q = fake.probabilities, real.probabilities
        numbers = {
            "effective_classes": Number(effective_classes(p), None, effective_classes(q)),
            "top_probability": Number(mean_top_probability(p), None, mean_top_probability(q)),
        }
        if (agreement := fake.agreement) is not None:
            numbers["agreement"] = Number(agreement, None, real.agreement)
        return Found(numbers, {})
