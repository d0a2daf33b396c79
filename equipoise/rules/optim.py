"""Settings of optimisers. Learning rates and momenta may be schedules of images seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from pydantic import Field
from torch import nn

from equipoise.core.schedules import Schedule, at
from equipoise.core.types import component

__all__ = ["Adam", "OptimConfig", "RMSprop"]


LATE = 10**15
"""A number of images at which every schedule has ended."""


class OptimConfig(ABC):
    """Settings of an optimiser."""

    @property
    def decays(self) -> bool:
        """Whether weights without a gradient shrink."""
        return False

    def slowed(self, share: float) -> OptimConfig:
        """Settings whose steps go as far when only `share` of all steps minimise the player's loss: lr · share, and
        averages of gradients that forget as slowly per loss, beta ** share. See `LazyStep`.

        Raises:
            ValueError: for an optimiser that does not define it.
        """
        raise ValueError(
            f"{self!r} does not say how to correct for steps that its player's terms take on their own (LazyStep): use "
            "Adam or RMSprop, define slowed(share) in it, or give the term without LazyStep"
        )

    @abstractmethod
    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """An optimiser for the parameters of `net` that require a gradient at this call."""

    @abstractmethod
    def apply(self, optimizer: torch.optim.Optimizer, nimg: int) -> None:
        """Set scheduled values (lr, betas) to their values after `nimg` images."""


def scaled(schedule: Schedule, factor: float) -> Schedule:
    return (lambda nimg: factor * schedule(nimg)) if callable(schedule) else factor * schedule


def raised(schedule: Schedule, power: float) -> Schedule:
    return (lambda nimg: schedule(nimg) ** power) if callable(schedule) else schedule**power


@component
class Adam(OptimConfig):
    """Adam (Kingma & Ba 2015). lr and betas may be schedules of images seen.

    weight_decay: `weight_decay` times the weight is added to its gradient, before Adam's averages. A weight whose
        gradient is 0 otherwise decays at the full learning rate.
    """

    lr: Schedule = 2e-4
    betas: tuple[Schedule, Schedule] = (0.0, 0.99)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def __post_init__(self) -> None:
        """Raises ValueError for `betas` that reach 1 at the start or the end of their schedule: Adam divides by 1 -
        beta. Give numbers below 1.
        """
        for beta in self.betas:
            for value in (at(beta, 0), at(beta, LATE)):
                if not 0 <= value < 1:
                    raise ValueError(
                        f"betas={self.betas!r} reach {value:g}, and Adam divides by 1 - beta: give numbers from 0 to "
                        "below 1, such as betas=[0,0.99]"
                    )

    @property
    def decays(self) -> bool:
        return self.weight_decay > 0

    def slowed(self, share: float) -> OptimConfig:
        beta1, beta2 = self.betas
        return replace(self, lr=scaled(self.lr, share), betas=(raised(beta1, share), raised(beta2, share)))

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        lr, beta1, beta2 = float(at(self.lr, 0)), float(at(self.betas[0], 0)), float(at(self.betas[1], 0))
        weights = [p for p in net.parameters() if p.requires_grad]
        return torch.optim.Adam(
            weights, lr=lr, betas=(beta1, beta2), eps=self.eps, weight_decay=self.weight_decay, fused=True
        )

    def apply(self, optimizer: torch.optim.Optimizer, nimg: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = float(at(self.lr, nimg))
            group["betas"] = (float(at(self.betas[0], nimg)), float(at(self.betas[1], nimg)))


@component
class RMSprop(OptimConfig):
    """RMSProp (Hinton 2012), as WGAN uses it. lr may be a schedule of images seen."""

    lr: Schedule = 5e-5
    alpha: float = Field(default=0.99, ge=0, lt=1)

    def slowed(self, share: float) -> OptimConfig:
        return replace(self, lr=scaled(self.lr, share), alpha=self.alpha**share)

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        weights = [p for p in net.parameters() if p.requires_grad]
        return torch.optim.RMSprop(weights, lr=float(at(self.lr, 0)), alpha=self.alpha)

    def apply(self, optimizer: torch.optim.Optimizer, nimg: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = float(at(self.lr, nimg))
