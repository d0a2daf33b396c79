"""ProGAN (Karras, Aila, Laine & Lehtinen 2018) for any images, by default the digits.

As published for CelebA-HQ and LSUN: each size fades in over 800 thousand images and is trained on 800 thousand more;
batches of 16, and of 14, 6 and 3 from 256x256 on; Wasserstein loss with gradient penalty 10 and drift penalty 0.001,
one update of D for one of G, Adam 1e-3 with betas (0, 0.99), z of length 512, an average of G that keeps 0.999 per
update (app. A.1; the authors' configurations). Each network has 23.1 million weights for 1024x1024.

`progan_small` makes a thousand updates per size and `progan` fifty thousand, hence the higher learning rate. Its maps
have 64 channels at 4x4 and 8x8, and 8 channels at 64x64. The drift penalty is lazy.

Different here:

- Images of less detail come in the full size, as in the authors' second version; in their first version they are small.
  The gradient penalty then acts on slopes per pixel of the full size.
- The learning rate is constant from the start. In their first version it rises over the first 40 kimg.
- Real images are not mirrored. The authors mirror faces and the small LSUN sets.
- The average has a half-life of 11 kimg at every size: 0.999 per update of 16 images. The authors' average keeps 0.999
  per update of any batch. At 1024x1024, with 3 images, this one keeps 0.9998. The half-life is shorter in the first 220
  kimg (`rampup`).
- 19,000 kimg is for CelebA-HQ at 1024x1024, which is fully grown after 12,800. Smaller images are fully grown sooner:
  28x28 after 3,200, 256x256 after 9,600.
"""

from __future__ import annotations

import math
from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import Drift, GradientPenalty, Wasserstein
from equipoise.models import ProGANDiscriminator, ProGANGenerator
from equipoise.rules import Adam, EMAConfig, ProgressiveGrowing, Report
from equipoise.weights import EqualizedLearningRate

__all__ = ["progan", "progan_small"]

BATCH = 16


def progan() -> TrainConfig:
    """ProGAN (Karras et al. 2018): images that grow from 4x4, WGAN-GP with drift, equalised learning rate 1e-3."""
    adam = Adam(lr=1e-3, betas=(0.0, 0.99))
    return TrainConfig(
        data=Digits(),
        generator=ProGANGenerator(output="linear"),
        discriminator=ProGANDiscriminator(minibatch="std", group_size=BATCH),
        loss=Wasserstein(),
        terms=(GradientPenalty(strength=10.0), Drift(strength=0.001)),
        g_normalizer=EqualizedLearningRate(),
        d_normalizer=EqualizedLearningRate(),
        growth=ProgressiveGrowing(
            initial=4, stable_kimg=800, fade_kimg=800, batch_sizes=((256, 14), (512, 6), (1024, 3))
        ),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=BATCH * math.log(0.5) / math.log(0.999) / 1000),  # 11 kimg
        batch_size=BATCH,
        total_kimg=19000,
        report=Report(snapshot_kimg=100),
    )


def progan_small() -> TrainConfig:
    """ProGAN for two cores (Karras et al. 2018): an eighth of the width, 30 kimg a size, learning rate 5e-3."""
    adam = Adam(lr=5e-3, betas=(0.0, 0.99))
    return replace(
        progan(),
        generator=ProGANGenerator(z_dim=128, width=64, full_until=8, output="linear"),
        discriminator=ProGANDiscriminator(width=64, full_until=8, minibatch="std"),
        terms=(GradientPenalty(strength=10.0), Drift(strength=0.001, every=4)),
        growth=ProgressiveGrowing(initial=4, stable_kimg=30, fade_kimg=30, batch_sizes=((32, 16),)),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=5),
        batch_size=32,
        total_kimg=400,
        report=Report(snapshot_kimg=10),
    )
