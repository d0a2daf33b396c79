"""Adaptive augmentation for small data (Karras, Aittala, Hellsten, Laine, Lehtinen & Aila 2020), by default the
digits.

    equipoise train ada runs/few 'data=Few(of=Digits,num=500)'

As published: ADA with target 0.6, p from 0 to 1 in 500 kimg and the transforms "blit", "geometric" and "color"
(sec. 3), the non-saturating loss, lazy R1 every 16 updates with gamma = 0.0002 size² / batch, betas (0, 0.99),
batch 64, minibatch standard deviation in groups of 4, and an average of G of half-life 10 · batch / 32 kimg, at
most 5 % of the images seen (the automatic configuration of the authors' code, on two GPUs).

The default gamma is for 28x28. For other sizes set `terms.0.gamma`: 0.0032 for 32x32, 0.0128 for 64x64, 0.0512 for
128x128.

Different here:

- The networks are a DCGAN's instead of StyleGAN2's. Path length regularisation, style mixing and an equalised learning
  rate do not apply. G has batch norm.
- The learning rate is the quickstart's 1e-3. The authors' 2.5e-3 is for an equalised learning rate. 1e-3 was ahead of
  DCGAN's 2e-4 after 40 kimg of 500 digits, in the one comparison made.
- Lazy R1 joins the gradient of D's loss, in every 16th update. The authors make a separate update for R1, so 17 updates
  replace 16. To compensate, their D's Adam has its learning rate multiplied by 16/17 and its betas raised to 16/17.
"""

from __future__ import annotations

from equipoise.augment import ADA
from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import R1, NonSaturating
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import Adam, EMAConfig

__all__ = ["ada"]

BATCH = 64


def ada() -> TrainConfig:
    """Adaptive augmentation, for small data (Karras et al. 2020): ADA 0.6, lazy R1, averaged G, on a DCGAN."""
    adam = Adam(lr=1e-3, betas=(0.0, 0.99))
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=100),
        discriminator=DCGANDiscriminator(norm="none", minibatch="std"),
        head=Head(init_std=0.02),
        loss=NonSaturating(),
        terms=(R1(gamma=0.0002 * 28**2 / BATCH, every=16),),
        augment=ADA(target=0.6, kimg=500.0, groups=("blit", "geometric", "color")),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10 * BATCH / 32, rampup=0.05),
        batch_size=BATCH,
        total_kimg=1000,
    )
