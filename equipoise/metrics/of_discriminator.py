"""The interface of a metric that asks the discriminator of a run."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVarTuple

from equipoise.core.types import ImageSpec

from .base import Asked, Metric

__all__ = ["OfDiscriminator"]

Answers = TypeVarTuple("Answers")


class OfDiscriminator(Metric[*Answers]):
    """A metric that asks the discriminator of the run that drew the images."""

    @abstractmethod
    def check(self, D: Asked, against: ImageSpec) -> None:
        """Raises ValueError, before any work, if it cannot be asked with a reference set of this spec.

        Of one without labels num_classes is 0, whatever it is of.
        """
