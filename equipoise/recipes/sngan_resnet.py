"""SN-GAN (Miyato, Kataoka, Koyama & Yoshida 2018) and its projection discriminator (Miyato & Koyama 2018) on pictures.

    equipoise train sngan_resnet runs/photos 'data=Images(path="photos", resolution=48)' \
        generator=ResNetGenerator discriminator=ResNetDiscriminator
    equipoise train sngan_projection runs/concat head.conditioning=Hidden discriminator.join=3

As published:

- `sngan_resnet`: the residual networks for 32x32 (app. B.4), spectral norm in D alone, the hinge loss, 5 updates of D
  for one of G, Adam 2e-4 with betas (0, 0.9), batch 64 for D and 128 for G, z of length 128, and 50,000 updates of G
  with a learning rate that falls linearly to 0 (the authors' configuration for CIFAR-10).
- `sngan_cnn`: the standard CNN (table 3), the non-saturating loss, Adam 2e-4 with betas (0.5, 0.999), one update of D
  for one of G (setting C of table 1), 100,000 updates.
- `sngan_projection`: the conditional networks for 128x128, conditional batch norm in G and a projection in D, 450,000
  updates of G, with a learning rate that falls to 0 in the last 50,000, noise U[0, 1/128] on real images. The rest is
  as in `sngan_resnet`. The two settings above give the D that the paper compares it with: the class joins the map after
  the third block (fig. 1b).

`sngan_resnet_small` is not published. It is chosen so that two cores can train it: networks of a quarter of the width
or less, for any images, one update of D for one of G with twice G's learning rate (Heusel et al. 2017), equal batches
for G and D, and an averaged G.

Different here:

- Generated images take the labels of the real batch; G's update uses each label twice. The authors draw labels
  uniformly.
- The head of `sngan_projection` is without a bias; the authors' has one.
- The head's vectors start from N(0, 1/F). The authors' start from Glorot's uniform distribution, with variance
  2/(F + 1) for the vector shared by all classes and 2/(F + classes) for the vectors of single classes. Spectral norm
  divides by the length of both.
- Batch norm adds 1e-5 to the variance, the authors' 2e-5.
- Real images of `sngan_projection` are bytes / 127.5 - 1 plus the noise, up to 1 + 1/128. The authors' are bytes / 128
  - 1 plus the noise, up to 1.
- In the concatenating D, the hidden layer of the fourth block is as wide as that block's input. In the authors' code
  this width leaves e(y) out, which the layer would not accept.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.core.schedules import After, Linear
from equipoise.data import CIFAR10, Digits, Images
from equipoise.losses import Hinge, NonSaturating
from equipoise.models import (
    Head,
    Projection,
    ResNetDiscriminator,
    ResNetGenerator,
    SNGANDiscriminator,
    SNGANGenerator,
)
from equipoise.rules import Adam, EMAConfig
from equipoise.weights import SpectralNorm

__all__ = ["sngan_cnn", "sngan_projection", "sngan_resnet", "sngan_resnet_small"]


def sngan_cnn() -> TrainConfig:
    """SN-GAN's standard CNN (Miyato et al. 2018) on CIFAR-10: spectral norm, Adam 2e-4 with betas (0.5, 0.999)."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return TrainConfig(
        data=CIFAR10(),
        generator=SNGANGenerator(),
        discriminator=SNGANDiscriminator(),
        head=Head(init_std=0.02),
        loss=NonSaturating(),
        d_normalizer=SpectralNorm(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        batch_size=64,
        total_kimg=6400,
    )


def sngan_resnet() -> TrainConfig:
    """SN-GAN's ResNets (Miyato et al. 2018) on CIFAR-10: hinge loss, spectral norm, 5 updates of D, Adam 2e-4."""
    kimg = 16_000  # 50,000 updates of G, 250,000 updates of D on 64 images
    adam = Adam(lr=Linear(start=2e-4, end=0.0, kimg=kimg), betas=(0.0, 0.9))
    return TrainConfig(
        data=CIFAR10(),
        generator=ResNetGenerator(width=256, channels="constant"),
        discriminator=ResNetDiscriminator(width=128, channels="constant"),
        loss=Hinge(),
        d_normalizer=SpectralNorm(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        d_steps=5,
        batch_size=64,
        g_batches=2,
        total_kimg=kimg,
    )


def sngan_projection() -> TrainConfig:
    """SN-GAN with projection (Miyato & Koyama 2018): conditional ResNets for labelled images of 128x128, Adam 2e-4."""
    falling = Linear(start=2e-4, end=0.0, kimg=16_000)  # 50,000 updates of G
    adam = Adam(lr=After(falling, kimg=128_000), betas=(0.0, 0.9))
    return replace(
        sngan_resnet(),
        data=Images(path="imagenet", resolution=128),
        generator=ResNetGenerator(),
        discriminator=ResNetDiscriminator(),
        head=Head(Projection()),
        g_optim=adam,
        d_optim=adam,
        dequantise=1 / 128,
        total_kimg=144_000,
    )


def sngan_resnet_small() -> TrainConfig:
    """SN-GAN's ResNets (Miyato et al. 2018), narrow, for any images on two cores: hinge loss, one update of D."""
    return replace(
        sngan_resnet(),
        data=Digits(),
        generator=ResNetGenerator(width=16),
        discriminator=ResNetDiscriminator(width=16),
        g_optim=Adam(lr=2e-4, betas=(0.0, 0.9)),
        d_optim=Adam(lr=4e-4, betas=(0.0, 0.9)),
        ema=EMAConfig(halflife_kimg=10),
        d_steps=1,
        g_batches=1,
        total_kimg=500,
    )
