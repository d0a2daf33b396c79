"""Ten ways to train one GAN: a plain one, and nine from the literature that improve on it.

from equipoise.lab.points.settings import SETTINGS

SETTINGS["R1"]()  # the config of a GAN of points
SETTINGS["R1"](cfg)  # the networks, data and learning rates of `cfg`, with R1 in place of its own stabilisers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from equipoise.config import TrainConfig
from equipoise.losses import (
    R1,
    R2,
    GradientPenalty,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    Wasserstein,
)
from equipoise.models import Head
from equipoise.weights import ClipWeights, NoNormalizer, SpectralNorm

from .gan import plain_gan

__all__ = ["SETTINGS", "Setting"]

NONE: Mapping[str, Any] = {
    "head": Head(),
    "terms": (),
    "d_normalizer": NoNormalizer(),
    "constraints": (),
}
"""Fields that a setting decides besides the loss, with their values in an unstabilised GAN."""


@dataclass(frozen=True)
class Setting:
    """A loss and its stabilisers. A call puts them into a config, in place of the config's own.

    source: the paper.  changes: fields of the config that differ from a plain GAN.
    """

    source: str
    changes: Mapping[str, Any] = field(hash=False)

    def __call__(self, base: TrainConfig | None = None) -> TrainConfig:
        """Put `base` under this setting. None: `plain_gan()`, the minimax GAN on a ring."""
        return replace(plain_gan() if base is None else base, **{**NONE, **self.changes})


SETTINGS: Mapping[str, Setting] = {
    "minimax": Setting("Goodfellow et al. 2014, eq. 1", {"loss": Saturating()}),
    "non-saturating": Setting("Goodfellow et al. 2014, sec. 3", {"loss": NonSaturating()}),
    "LSGAN": Setting("least squares, Mao et al. 2017", {"loss": LeastSquares()}),
    "WGAN": Setting(
        "clipped weights, Arjovsky et al. 2017", {"loss": Wasserstein(), "constraints": (ClipWeights(bound=0.1),)}
    ),
    "WGAN-GP": Setting(
        "gradient penalty, Gulrajani et al. 2017",
        {"loss": Wasserstein(), "terms": (GradientPenalty(strength=1.0),)},
    ),
    "SN": Setting(
        "spectral norm, Miyato et al. 2018; the last layer is free, as under SAN",
        {"loss": Hinge(), "d_normalizer": SpectralNorm(skip=("head.*",))},
    ),
    "R1": Setting("Mescheder et al. 2018", {"loss": NonSaturating(), "terms": (R1(gamma=0.1, every=1),)}),
    "SAN": Setting("Takida et al. 2024", {"loss": Hinge(), "head": Head(san=True)}),
    "SN+SAN": Setting(
        "Takida et al. 2024, on spectral norm",
        {"loss": Hinge(), "head": Head(san=True), "d_normalizer": SpectralNorm()},
    ),
    "R3GAN": Setting(
        "relativistic loss with R1 and R2, Huang et al. 2024",
        {"loss": RelativisticPairing(), "terms": (R1(gamma=0.1, every=1), R2(gamma=0.1, every=1))},
    ),
}
"""Settings by name, the three without a stabiliser first. Strengths suit points a few units apart."""
