"""SAGAN (Zhang, Goodfellow, Metaxas & Odena 2019) for labelled images of any size, published for 128x128.

As published: networks, hinge loss, spectral norm on every weight of both networks, conditional batch norm, projection,
Adam 1e-4 for G and 4e-4 for D with betas (0, 0.9), one update of D for one of G, batch 256, z of length 128, a million
updates, attention at 32x32 (secs. 3 and 4; xavier weights, z, width and place of attention from the authors' code).

`sagan_small` is for two cores, 28x28 to 64x64: an eighth of the width, attention at 16x16, batch 64, an averaged G.

Different here:

- The head is without a bias, and starts from N(0, 1/F).
- Generated images take the labels of the real batch.
- The default data are the bundled digits. Such a network is far too large for them.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import Hinge
from equipoise.models import Head, Projection, SAGANDiscriminator, SAGANGenerator
from equipoise.rules import Adam, EMAConfig
from equipoise.weights import SpectralNorm

__all__ = ["sagan", "sagan_small"]

WIDTH = 8
"""Width of the small networks. 16 took twice the time on 64x64 images."""


def sagan() -> TrainConfig:
    """Self-attention in both networks (Zhang et al. 2019): SN, conditional batch norm, projection, lr 1e-4 and 4e-4."""
    return TrainConfig(
        data=Digits(),
        generator=SAGANGenerator(),
        discriminator=SAGANDiscriminator(),
        head=Head(Projection()),
        loss=Hinge(),
        g_normalizer=SpectralNorm(),
        d_normalizer=SpectralNorm(),
        g_optim=Adam(lr=1e-4, betas=(0.0, 0.9)),
        d_optim=Adam(lr=4e-4, betas=(0.0, 0.9)),
        ema=EMAConfig(halflife_kimg=0),
        batch_size=256,
        total_kimg=256_000,
    )


def sagan_small() -> TrainConfig:
    """SAGAN for two cores (Zhang et al. 2019): `sagan` at an eighth of the width, attention at 16x16, averaged G."""
    return replace(
        sagan(),
        generator=SAGANGenerator(width=WIDTH, attention=16),
        discriminator=SAGANDiscriminator(width=WIDTH, attention=16),
        ema=EMAConfig(halflife_kimg=10),
        batch_size=64,
        total_kimg=1000,
    )
