"""Adversarial losses: elementwise arithmetic on logits, no reduction, no networks, no state.

Every loss is a frozen value with two methods, `d(real, fake)` and `g(fake, real=None)`, both minimised.
The sigmoid never appears: log s(t) = -softplus(-t) and log(1 - s(t)) = -softplus(t) are exact for every
logit, where log(s(t) + eps) loses its gradient. Some papers halve D's loss. A constant factor belongs in D's
learning rate, so it makes no new loss here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from equipoise.core.types import component

__all__ = [
    "GANLoss",
    "Hinge",
    "LeastSquares",
    "NonSaturating",
    "RelativisticPairing",
    "Saturating",
    "SoftLeastSquares",
    "Wasserstein",
]


class GANLoss(ABC):
    """The losses of D and G. Subclasses are final: never subclass a loss you can instantiate."""

    paired: ClassVar[bool] = False
    """Whether `g` needs the real logits too."""
    signed: ClassVar[bool] = True
    """Whether a logit of 0 means undecided, so that the sign of a logit is D's verdict."""
    cross_entropy: ClassVar[bool] = False
    """Whether D minimises the cross-entropy of its verdict, so that a logit is a log-odds."""
    estimates: ClassVar[str | None] = None
    """Name of the distance that mean D(x) - mean D(G(z)) equals for the best D; None: it is not a distance."""

    @abstractmethod
    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """D's loss for logits of real and of generated images, (N, K) each -> (N, K)."""

    @abstractmethod
    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """G's loss for logits of generated images, (N, K) -> (N, K). `real` is read by paired losses only."""


def binary_cross_entropy(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    """-(1 - a) log s(real) - a log(1 - s(real)) - log(1 - s(fake)), with a = smoothing.

    softplus(-t) + a t is the cross-entropy of target 1 - a, because log(1 - s(t)) = log s(t) - t.
    """
    return F.softplus(-real) + smoothing * real + F.softplus(fake)


@component
class Saturating(GANLoss):
    """The minimax game: -log s(D(x)) - log(1 - s(D(G(z)))) for D, log(1 - s(D(G(z)))) for G.

    Goodfellow et al. 2014, eq. 1. G's gradient vanishes where D is sure; `NonSaturating` repairs this.

    smoothing: one-sided label smoothing. The target is 1 - smoothing for real images and stays 0 for generated ones
        (Salimans et al. 2016, sec. 3.4; 0.1 there).
    """

    cross_entropy: ClassVar[bool] = True

    smoothing: float = Field(default=0.0, ge=0, lt=1)

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return binary_cross_entropy(real, fake, self.smoothing)

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -F.softplus(fake)


@component
class NonSaturating(GANLoss):
    """-log s(D(x)) - log(1 - s(D(G(z)))) for D, -log s(D(G(z))) for G (Goodfellow et al. 2014, sec. 3).

    smoothing: as in `Saturating`.
    """

    cross_entropy: ClassVar[bool] = True

    smoothing: float = Field(default=0.0, ge=0, lt=1)

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return binary_cross_entropy(real, fake, self.smoothing)

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return F.softplus(-fake)


@component
class Hinge(GANLoss):
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) for D, -D(G(z)) for G (Lim & Ye 2017; Miyato et al. 2018)."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real) + F.relu(1 + fake)

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake


@component
class Wasserstein(GANLoss):
    """D(G(z)) - D(x) for D, -D(G(z)) for G (Arjovsky et al. 2017, eq. 2).

    -d estimates the earth mover's distance, up to D's Lipschitz constant. Something else must bound that constant.
    """

    signed: ClassVar[bool] = False
    estimates: ClassVar[str | None] = "wasserstein"

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return -fake


@component
class LeastSquares(GANLoss):
    """(D(x) - b)^2 / 2 + (D(G(z)) - a)^2 / 2 for D, (D(G(z)) - c)^2 / 2 for G (Mao et al. 2017, eq. 2).

    a, b: D's targets for generated and real images.  c: G's target for its images.
    """

    signed: ClassVar[bool] = False

    a: float = 0.0
    b: float = 1.0
    c: float = 1.0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return 0.5 * ((real - self.b).square() + (fake - self.a).square())

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return 0.5 * (fake - self.c).square()


@component
class SoftLeastSquares(GANLoss):
    """softplus(1 - D(x))^2 + softplus(D(G(z)))^2 for D, softplus(1 - D(G(z)))^2 for G (Shibuya et al. 2024).

    Least squares made monotone, so that its direction loss under SAN always pulls the same way (BigVSAN).
    """

    signed: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(1 - real).square() + F.softplus(fake).square()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return F.softplus(1 - fake).square()


@component
class RelativisticPairing(GANLoss):
    """softplus(D(G(z)) - D(x)) for D, softplus(D(x) - D(G(z))) for G, the i-th real with the i-th fake.

    Jolicoeur-Martineau 2019 (RpGAN); Huang et al. 2024 (R3GAN).
    """

    paired: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real)

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            raise ValueError("RelativisticPairing.g compares with real images: pass their logits, g(fake, real)")
        return F.softplus(real - fake)
