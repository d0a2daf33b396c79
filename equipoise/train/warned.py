"""Warnings of stabilisers' guarantees that a config voids."""

from __future__ import annotations

import warnings

from torch import nn

from equipoise.compute.distributed import rank
from equipoise.config import TrainConfig
from equipoise.doctor import voided_by

__all__ = ["warn_of_voided"]


def warn_of_voided(cfg: TrainConfig, D: nn.Module) -> None:
    """Warn of each guarantee that `D` and the other settings of `cfg` void, on rank 0, at the line that built them."""
    if rank() == 0:
        for reason in voided_by(cfg, D):
            warnings.warn(reason, stacklevel=3)
