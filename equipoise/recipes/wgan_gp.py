"""WGAN-GP (Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville 2017) for any images, by default the digits.

As published: penalty 10 (‖grad D‖ - 1)² between real and generated images, 5 critic updates per update of G, Adam
1e-4 with betas (0, 0.9), batch 64 (alg. 1); a critic with layer norm in place of batch norm, because the penalty
is per image and batch norm mixes images (sec. 4).

Different here:

- z of length 100 instead of 128, and N(0, 0.02²) initialisation.
- For digits the authors' code uses networks without norms, betas (0.5, 0.9) and batch 50.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.losses import GradientPenalty
from equipoise.models import DCGANDiscriminator
from equipoise.rules import Adam

from .wgan import wgan

__all__ = ["wgan_gp"]


def wgan_gp() -> TrainConfig:
    """WGAN with a gradient penalty (Gulrajani et al. 2017): `wgan` unclipped, a layer-norm critic, Adam 1e-4."""
    adam = Adam(lr=1e-4, betas=(0.0, 0.9))
    return replace(
        wgan(),
        discriminator=DCGANDiscriminator(norm="layer"),
        terms=(GradientPenalty(strength=10.0),),
        constraints=(),
        g_optim=adam,
        d_optim=adam,
    )
