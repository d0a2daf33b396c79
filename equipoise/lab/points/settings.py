"""Ten ways to train one GAN: a plain one, and those of the literature that keep it from failing.

from equipoise.lab.points.settings import SETTINGS

SETTINGS["R1"]()  # the config of a GAN of points
SETTINGS["R1"](cfg)  # the networks, data and learning rates of `cfg`, with R1 in place of what held it together
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
"""The fields that a setting decides, beside the loss, as they are in a GAN that nothing stabilises."""


@dataclass(frozen=True)
class Setting:
    """A loss and what goes with it. Called, it puts these into a config, in place of those that are there.

    source: whose it is.  changes: fields of the config that are not as in a plain GAN.
    """

    source: str
    changes: Mapping[str, Any] = field(hash=False)

    def __call__(self, base: TrainConfig | None = None) -> TrainConfig:
        """`base` under this setting. None: `plain_gan()`, which is the minimax GAN on a ring."""
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
"""By name, the three without a stabiliser first. Strengths are those for points a few units apart."""
