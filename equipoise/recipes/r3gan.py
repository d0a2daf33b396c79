"""R3GAN's loss (Huang, Gokaslan, Kuleshov & Tompkin 2024) for any images, by default the digits.

As published: real and generated images judged in pairs, R1 and R2 at every update, Adam with betas (0, 0.9 to 0.99)
and a learning rate from 2e-4 to 5e-5, gamma falling to a tenth, all along half a cosine, z of length 64, no norm in D
(table 9; the authors' presets).

Different here:

- gamma goes from 1 to 0.1. The paper sets it per data set: 0.05 to 0.005 for CIFAR-10, 0.5 to 0.05 and 1 to 0.1 for
  ImageNet at 32x32 and 64x64, 2 to 0.2 for faces at 64x64, 150 to 15 at 256x256. With 0.05 D was far ahead of G after
  30 kimg of digits, in the one comparison made.
- The networks are a DCGAN's, so G has batch norm. The paper's are grouped residual networks, with an initialisation
  made for networks without norms. A DCGAN's G without batch norm was behind in the same comparison.
- The cosines end with this short run. The paper's end after 20 of 250 million images.
- Batch 64 instead of 512. The average of G has a half-life of 10 kimg, 2 % of the run; so has the paper's, 5,000 kimg.
- No augmentation; the paper's rises to p = 0.55.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.core.schedules import Cosine
from equipoise.data import Digits
from equipoise.losses import R1, R2, RelativisticPairing
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import Adam, EMAConfig

__all__ = ["r3gan"]


def r3gan() -> TrainConfig:
    """Relativistic pairing with R1 and R2 (Huang et al. 2024): gamma 1 to 0.1, Adam 2e-4 to 5e-5."""
    kimg = 500.0
    gamma = Cosine(start=1.0, end=0.1, kimg=kimg)
    adam = Adam(
        lr=Cosine(start=2e-4, end=5e-5, kimg=kimg),
        betas=(0.0, Cosine(start=0.9, end=0.99, kimg=kimg)),
    )
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=64),
        discriminator=DCGANDiscriminator(norm="none"),
        head=Head(init_std=0.02),
        loss=RelativisticPairing(),
        terms=(R1(gamma=gamma, every=1), R2(gamma=gamma, every=1)),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10),
        batch_size=64,
        total_kimg=kimg,
    )
