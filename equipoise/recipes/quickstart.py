"""The first run: digits in a few minutes on a laptop's CPU."""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import Hinge
from equipoise.models import Head, SANDigitsDiscriminator, SANDigitsGenerator
from equipoise.rules import Adam, EMAConfig
from equipoise.weights import SpectralNorm

__all__ = ["quickstart"]


def quickstart() -> TrainConfig:
    """SN + SAN + EMA on narrow digits networks: real digits in minutes on two cores."""
    adam = Adam(lr=1e-3, betas=(0.0, 0.99))
    return TrainConfig(
        data=Digits(),
        generator=SANDigitsGenerator(width=32),
        discriminator=SANDigitsDiscriminator(width=32),
        head=Head(san=True),
        loss=Hinge(),
        d_normalizer=SpectralNorm(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10),
        batch_size=64,
        total_kimg=160,
    )
