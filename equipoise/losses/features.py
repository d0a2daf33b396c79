"""Feature matching: train G to match the mean of D's features on real images."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from equipoise.core.schedules import Schedule, at
from equipoise.core.types import component

from .base import Place, Seen, Term
from .objective import pairs

__all__ = ["FeatureMatching"]


@component
class FeatureMatching(Term):
    """strength ‖mean_i f(x_i) - mean_j f(G(z_j))‖², f the features that D's head reads.

    Salimans et al. 2016, sec. 3.1. The squared distance between two means. A mean over pairs would pull every image to
    the mean image.

    adversarial: True: G minimises this besides its adversarial loss. False: in its place, as in the paper.
    """

    every = 1
    player = "G"
    place: ClassVar[Place] = "fused"
    whole_batch: ClassVar[bool] = True

    strength: Schedule = 1.0
    adversarial: bool = True

    @property
    def replaces_loss(self) -> bool:
        return not self.adversarial

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def __call__(self, real: Tensor | None, fake: Tensor | None) -> Tensor:
        """`Logits.features` of both, (N, ...) and (M, ...) -> (), unweighted, in float32 or wider.

        A feature map (N, F, H, W) counts as F·H·W features. D is frozen in G's step: its weights require no gradient,
        or `real` is detached. Each of several processes compares the means of its own share of the batch.

        Raises:
            ValueError: if features are missing, or differ in shape between real and generated images.
        """
        if real is None or fake is None:
            raise ValueError(
                "feature matching compares what the head of D reads, and D returned no features. Use a "
                "discriminator of body and head (equipoise.nn.heads.Discriminator), or set features in the Logits that "
                "yours returns."
            )
        if real.ndim < 2 or real.shape[1:] != fake.shape[1:]:
            raise ValueError(
                "expected the same features of real and generated images, (N, F) or (N, F, H, W), got "
                f"{tuple(real.shape)} and {tuple(fake.shape)}"
            )
        return (mean(real) - mean(fake)).square().sum()

    def of(self, seen: Seen) -> Tensor:
        """The sum over D's outputs."""
        on_fake, on_real = seen.on_fake, seen.on_real
        return torch.stack([self(r.features, f.features) for r, f in pairs(on_real, on_fake)]).sum()


def mean(features: Tensor) -> Tensor:
    """Over images, (N, ...) -> (...); bfloat16 features too are averaged in float32."""
    return features.to(torch.promote_types(features.dtype, torch.float32)).mean(0)
