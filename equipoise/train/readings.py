"""Reported statistics of D's logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.config import TrainConfig
from equipoise.losses import Seen, accuracy, logits

__all__ = ["Readings"]


class Readings:
    """Scalars of an update of D, detached."""

    def __init__(self, cfg: TrainConfig):
        self.cfg = cfg

    def of_logits(self, seen: Seen) -> dict[str, Tensor]:
        """Mean logits, mean sign on real images, the loss's estimate of a distance, and accuracy of the classes."""
        right, fooled = logits(seen.on_real).detach(), logits(seen.on_fake).detach()
        stats = {"real": right.mean(), "fake": fooled.mean(), "sign_real": right.sign().mean()}
        if self.cfg.loss.estimates is not None:
            stats[self.cfg.loss.estimates] = right.mean() - fooled.mean()
        if self.cfg.head.conditioning.classifies is not None and seen.real.label is not None:
            stats["accuracy"] = accuracy(seen.on_real, seen.real.label)
        return stats

    def of_reals_again(self, verdicts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The mean sign of logits (N, K) that penalties had of real images, for an augmentation that counts them."""
        if not (self.cfg.augment.all_passes and verdicts):
            return {}
        return {"sign_again": torch.cat([each.flatten() for each in verdicts]).sign().mean()}
