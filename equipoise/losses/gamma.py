"""The strength of R1 and R2 as a function of resolution and batch size."""

from __future__ import annotations

import math

from pydantic import Field

from equipoise.core.schedules import Schedule, at
from equipoise.core.types import ImageSpec, component

__all__ = ["ByResolution", "Gamma", "gamma_at", "gamma_for"]


@component
class ByResolution:
    """gamma = factor · size² / batch (Karras et al. 2020, "Training GANs with limited data", their configuration auto).

    A pixel's gradient shrinks as pixels grow in number, and a small batch needs more damping. A run replaces it by the
    number when it is built: size is the resolution of the data, √(H · W) for rectangles, and batch is `batch_size`,
    over all processes. Growing networks have the same number at all sizes. In your own loop,
    `ByResolution().at(size=256, batch=16)`.

    >>> ByResolution(0.0002).at(size=256, batch=16)
    0.8192
    """

    factor: float = Field(default=0.0002, ge=0)

    def at(self, size: float, batch: int) -> float:
        """Gamma for images of `size` x `size` pixels, `batch` of them per update."""
        return self.factor * size**2 / batch


Gamma = Schedule | ByResolution
"""A schedule, or a rule that becomes a number when the size of the images and of the batch are known."""


def gamma_for(gamma: Gamma, spec: ImageSpec, batch_size: int) -> Schedule:
    """`gamma` for these images and batches."""
    if not isinstance(gamma, ByResolution):
        return gamma
    height, width = spec.shape
    return gamma.at(height if spec.square else math.sqrt(height * width), batch_size)


def gamma_at(gamma: Gamma, nimg: int) -> float:
    """The value after `nimg` images. Raises ValueError for a rule without the size of images and batch."""
    if isinstance(gamma, ByResolution):
        raise ValueError(
            f"gamma={gamma!r} is a number once image size and batch size are known, as in a run: in your own loop give "
            f"gamma={gamma!r}.at(size=256, batch=16)"
        )
    return at(gamma, nimg)
