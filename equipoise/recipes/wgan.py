"""WGAN (Arjovsky, Chintala & Bottou 2017) for any images, by default the digits.

As published: the Wasserstein loss, weights clipped to [-0.01, 0.01] after each of 5 critic updates per update of G,
RMSProp 5e-5, batch 64 (alg. 1); N(0, 0.02²) initialisation, z of length 100, width 64, RMSProp's smoothing 0.99 (the
authors' code; the paper names none).

Different here:

- Only G has batch norm. The authors' critic has it too, and clips its gains. With any gains, a norm divides by a
  deviation, which undoes the bound of the clipping.
- 5 critic updates from the start. The authors' code makes 100 critic updates for each of the first 25 updates of G and
  for every 500th. `d_steps=ToConvergence` is the principled form of that.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import Wasserstein
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import EMAConfig, RMSprop
from equipoise.weights import ClipWeights

__all__ = ["wgan"]


def wgan() -> TrainConfig:
    """WGAN with clipped weights (Arjovsky et al. 2017): RMSProp 5e-5, 5 critic updates per update of G."""
    rmsprop = RMSprop(lr=5e-5, alpha=0.99)
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=100),
        discriminator=DCGANDiscriminator(norm="none"),
        head=Head(init_std=0.02),
        loss=Wasserstein(),
        constraints=(ClipWeights(bound=0.01),),
        g_optim=rmsprop,
        d_optim=rmsprop,
        ema=EMAConfig(halflife_kimg=0),
        d_steps=5,
        batch_size=64,
        total_kimg=1000,
    )
