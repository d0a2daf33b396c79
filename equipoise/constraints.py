"""Constraints project D's weights in place after each of its updates: callables net -> None."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic import Field
from torch import nn

from .normalizers import weighted_layers
from .types import component

__all__ = ["ClipWeights", "Constraint"]


class Constraint(ABC):
    """A set that D's weights stay in."""

    @abstractmethod
    def __call__(self, net: nn.Module) -> None:
        """Project the weights of `net` in place, without gradient."""


@component
class ClipWeights(Constraint):
    """Clamps the weights and biases of D's layers to [-bound, bound] (Arjovsky et al. 2017, alg. 1)."""

    bound: float = Field(default=0.01, gt=0)

    @torch.no_grad()
    def __call__(self, net: nn.Module) -> None:
        for _, layer in weighted_layers(net):
            for weight in layer.parameters():
                weight.clamp_(-self.bound, self.bound)
