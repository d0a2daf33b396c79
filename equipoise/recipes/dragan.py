"""DRAGAN (Kodali, Abernethy, Hays & Kira 2017) for any images, by default the digits.

As published: the non-saturating loss with penalty 10 (‖grad D‖ - 1)² at noisy real images, noise of half the images'
standard deviation, one D update per update of G, Adam 1e-4 with betas (0.5, 0.9), batch 128, z of length 100 from
U[-1, 1] (the authors' code for digits).

Different here:

- A DCGAN instead of a network of one hidden layer. D is without batch norm, because the penalty is per image.
- x̂ is the noisy image itself. The authors' code draws a point between the image and the noisy image.
- Images lie in [-1, 1], the authors' in [0, 1]. A gradient of length 1 on their scale has length 1/2 here. So D may be
  twice as steep here; `terms.0.strength=40 terms.0.target=0.5` is exactly their penalty.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.core.latents import Uniform
from equipoise.data import Digits
from equipoise.losses import Dragan, NonSaturating
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import Adam, EMAConfig

__all__ = ["dragan"]


def dragan() -> TrainConfig:
    """DRAGAN (Kodali et al. 2017): gradients of length 1 around the data, Adam 1e-4 with betas (0.5, 0.9)."""
    adam = Adam(lr=1e-4, betas=(0.5, 0.9))
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=100, prior=Uniform()),
        discriminator=DCGANDiscriminator(norm="none"),
        head=Head(init_std=0.02),
        loss=NonSaturating(),
        terms=(Dragan(strength=10.0, noise=0.5, target=1.0),),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        batch_size=128,
        total_kimg=500,
    )
