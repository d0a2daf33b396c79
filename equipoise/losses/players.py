"""The terms of every config: the adversarial losses, and the class losses that a head asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from .adversarial import GANLoss
from .base import Place, Players, Seen, Term
from .objective import class_loss, discriminator_loss, generator_loss

__all__ = ["ClassLoss", "DiscriminatorLoss", "GeneratorLoss"]


class Plain(Term):
    """A term of weight 1 at every update, reported within the player's loss."""

    every: int = 1
    place: ClassVar[Place] = "fused"

    @property
    def name(self) -> None:
        return None

    def weight(self, nimg: int) -> float:
        return 1.0


@dataclass(frozen=True)
class DiscriminatorLoss(Plain):
    """mean L_D(D(x), D(G(z))), with SAN's direction loss where D has one. normalize: as in `direction_loss`."""

    player = "D"
    opposes: ClassVar[bool] = True

    loss: GANLoss
    normalize: bool = False

    def of(self, seen: Seen) -> Tensor:
        return discriminator_loss(self.loss, seen.on_real, seen.on_fake, normalize=self.normalize)


@dataclass(frozen=True)
class GeneratorLoss(Plain):
    """mean L_G(D(G(z))); a paired loss compares with D(x)."""

    player = "G"
    opposes: ClassVar[bool] = True

    loss: GANLoss

    def of(self, seen: Seen) -> Tensor:
        return generator_loss(self.loss, seen.on_fake, seen.on_real if self.loss.paired else None)


@dataclass(frozen=True)
class ClassLoss(Plain):
    """`class_loss` on one kind of images: real, generated, or labelled (D may read their labels)."""

    images: Literal["real", "fake", "labelled"]
    player: Players

    def of(self, seen: Seen) -> Tensor:
        if self.images == "real":
            return class_loss(seen.on_real, seen.real.label)
        if self.images == "fake":
            return class_loss(seen.on_fake, seen.fake.label)
        if seen.labelled is None:
            raise ValueError("this D learns classes from labelled images: pass them, d_step(..., labelled=batch)")
        return class_loss(seen.on_labelled, seen.labelled.label)
