"""LSGAN (Mao, Li, Xie, Lau, Wang & Smolley 2017) for any images, by default the digits.

As published for 28x28 handwriting: targets 0 for generated and 1 for real images, and 1 for G (eq. 9), batch norm
in both networks, Adam 2e-4 with beta1 0.5 (sec. 4; 1e-3 for their 112x112 scenes), batch 64 (the authors' code).

Different here:

- A DCGAN instead of their networks.
- z is normal and of length 100 instead of uniform and of length 1024.
- No class labels, which they need for 3,740 characters.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import LeastSquares
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import Adam, EMAConfig

__all__ = ["lsgan"]


def lsgan() -> TrainConfig:
    """LSGAN (Mao et al. 2017): the least-squares loss on a DCGAN, Adam 2e-4 with beta1 0.5."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=100),
        discriminator=DCGANDiscriminator(norm="batch"),
        head=Head(init_std=0.02),
        loss=LeastSquares(a=0.0, b=1.0, c=1.0),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        batch_size=64,
        total_kimg=500,
    )
