"""DCGAN (Radford, Metz & Chintala 2016) at the size of digits.

As published: batch norm in both networks, ReLU in G and LeakyReLU 0.2 in D, N(0, 0.02²) initialisation, Adam 2e-4 with
betas (0.5, 0.999), batch 128 (sec. 4).

Different here:

- The networks come from common 28x28 tutorials, with fewer and smaller layers.
- z is normal and of length 64 instead of uniform and of length 100.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import NonSaturating
from equipoise.models import Head, TinyDigitsDiscriminator, TinyDigitsGenerator
from equipoise.rules import Adam, EMAConfig

__all__ = ["dcgan_digits"]


def dcgan_digits() -> TrainConfig:
    """DCGAN on digits (Radford et al. 2016): batch norm in both networks, Adam 2e-4 with beta1 0.5."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return TrainConfig(
        data=Digits(),
        generator=TinyDigitsGenerator(),
        discriminator=TinyDigitsDiscriminator(batch_norm=True),
        head=Head(init_std=0.02),
        loss=NonSaturating(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        batch_size=128,
        total_kimg=500,
    )
