"""Sets of samples for metrics, with answers that are at hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from equipoise.metrics import GaussianStats


@dataclasses.dataclass(frozen=True)
class Held:
    """As `metrics.base.Samples`; None is what a test does not ask for."""

    features: Any = None
    probabilities: Any = None
    pixels: Any = None
    labels: Any = None
    num_classes: int = 0
    discriminator: Any = None

    @property
    def stats(self) -> GaussianStats:
        return GaussianStats(self.features)
