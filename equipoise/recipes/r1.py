"""R1-regularised GAN (Mescheder, Geiger & Nowozin 2018) for any images, by default the digits.

As published: the non-saturating loss, 10 ‖grad D(x)‖² on real images at every update, RMSProp 1e-4 with smoothing
0.99, batch 64, no norm in either network, z of length 256, noise U[0, 1/128] on real images, and a moving average of G
that keeps 0.999 per update (sec. 6; the authors' configurations). The penalty is R1(gamma=20), with weight gamma/2:
the authors' code multiplies by 10 without halving.

Different here:

- A DCGAN instead of their residual networks.
- Images of 28x28 instead of 256x256. The same gamma weighs more on small images; `ada` has a rule of thumb.
- Real images are not mirrored.
- The average reaches 0.999 after 444 kimg and forgets faster before. Otherwise early samples would come from untrained
  weights.
"""

from __future__ import annotations

import math

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import R1, NonSaturating
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import EMAConfig, RMSprop

__all__ = ["r1_gan"]

BATCH = 64


def r1_gan() -> TrainConfig:
    """GAN with the R1 penalty (Mescheder et al. 2018): gamma 20, RMSProp 1e-4, no norm, averaged G."""
    rmsprop = RMSprop(lr=1e-4, alpha=0.99)
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=256, norm="none"),
        discriminator=DCGANDiscriminator(norm="none"),
        head=Head(init_std=0.02),
        loss=NonSaturating(),
        terms=(R1(gamma=20.0, every=1),),
        g_optim=rmsprop,
        d_optim=rmsprop,
        ema=EMAConfig(halflife_kimg=BATCH * math.log(0.5) / math.log(0.999) / 1000, rampup=0.1),  # 44 kimg
        batch_size=BATCH,
        dequantise=1 / 128,
        total_kimg=500,
    )
