"""Measures of how near generated points are to known data: by its modes, by its density, and by distances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from equipoise.core.randomness import Purpose, stream
from equipoise.data import Distribution, Mixture, SwissRoll
from equipoise.data.toy import spiral
from equipoise.metrics import high_quality, kl_to_uniform, modes_covered, wasserstein

__all__ = ["Measure", "measured", "measures_of", "on_roll", "real_points", "truth"]

MATCHED = 500
"""Points on each side that the Wasserstein distance pairs. The time grows as their cube."""
OTHERS = 4
"""Number of other samples of the data that are measured too."""


@dataclass(frozen=True)
class Measure:
    """A measure of how near generated points are to the data.

    title: name to show.  show: value -> text.  limits: limits of its axis; None leaves a limit open.
    of: generated and real points, (N, 2) each -> the value.
    """

    title: str
    show: Callable[[float], str]
    limits: tuple[float | None, float | None]
    of: Callable[[Tensor, Tensor], float]


def measures_of(distribution: Distribution) -> dict[str, Measure]:
    """Measures for points that should follow `distribution`: by its modes, by its density, by distances."""

    def transported(x: Tensor, real: Tensor) -> float:
        return wasserstein(x[:MATCHED], real[:MATCHED])

    measures = {}
    if isinstance(distribution, Mixture):
        of, num = distribution, len(distribution.modes)
        measures = {
            "modes": Measure(f"modes of {num}", "{:.3g}".format, (0, 1.06 * num), lambda x, _: modes_covered(of, x)),
            "high_quality": Measure("high quality", "{:.0%}".format, (0, 1.06), lambda x, _: high_quality(of, x)),
            "kl": Measure("KL", "{:.2f}".format, (0, None), lambda x, _: kl_to_uniform(of, x)),
        }
    elif isinstance(distribution, SwissRoll):
        roll = distribution
        measures = {
            "on_roll": Measure("on the roll", "{:.0%}".format, (0, 1.06), lambda x, _: on_roll(roll, x)),
            "log_density": Measure(
                "log density", "{:.2f}".format, (None, None), lambda x, _: roll.log_density(x).mean().item()
            ),
        }
    return measures | {"wasserstein": Measure("Wasserstein", "{:.2f}".format, (0, None), transported)}


def on_roll(roll: SwissRoll, x: Tensor, *, within: float = 3.0) -> float:
    """The share of points (N, 2) that lie within `within` standard deviations of the noise from the spiral."""
    curve = spiral(roll.quadrature()[0]) / roll.scale  # (T, 2), spaced much closer than the noise is wide
    distance = torch.cdist(x.double(), curve, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    return (distance <= within * roll.noise / roll.scale).double().mean().item()


def measured(distribution: Distribution, x: Tensor, real: Tensor) -> dict[str, float | None]:
    """All measures of generated points (N, 2) by name; None for each if a point is not finite."""
    finite = bool(x.isfinite().all())
    return {name: measure.of(x, real) if finite else None for name, measure in measures_of(distribution).items()}


# ---- real points -----------------------------------------------------------------------------------------


def real_points(distribution: Distribution, num: int, key: int = 1) -> Tensor:
    """A sample of the data, (num, 2), kept from training. key: 1 or more; each key gives other points."""
    return distribution.sample(num, stream(0, Purpose.POINTS, 0, key))


def truth(distribution: Distribution, num: int) -> dict[str, float]:
    """The measures of real points: means over `OTHERS` samples, each measured as if it were generated."""
    real = real_points(distribution, num)
    others = [real_points(distribution, num, key) for key in range(2, 2 + OTHERS)]
    return {name: fmean(measure.of(x, real) for x in others) for name, measure in measures_of(distribution).items()}
