"""WGAN-GP (Gulrajani, Ahmed, Arjovsky, Dumoulin & Courville 2017) on its ResNets, and on its varied architectures.

    equipoise train wgan_gp_varied runs/a generator.nonlinearity=tanh generator.depth=12 discriminator.depth=12
    equipoise train wgan_gp_varied runs/b generator.nonlinearity=gated discriminator.nonlinearity=gated
    equipoise train wgan_gp_varied runs/c generator=MLPGenerator

As published, for all: penalty 10 (‖grad D‖ - 1)², 5 critic updates per update of G, batch 64, z of length 128, and:

- `wgan_gp_resnet`: the residual networks for CIFAR-10 (app. F), Adam 2e-4 with betas (0, 0.9), 100,000 updates of G
  with a learning rate that falls linearly to 0, batch 128 for G, noise U[0, 1/128] on real images (the authors' code,
  without labels).
- `wgan_gp_resnet64`: the residual networks for 64x64, Adam 1e-4 with betas (0, 0.9), 200,000 updates, without noise
  (the authors' code).
- `wgan_gp_varied`: the baseline DCGAN. Settings of `VariedGenerator` and `VariedDiscriminator` turn it into any of the
  random architectures (table 1). Adam 1e-4 with betas (0, 0.9), 100,000 updates, weight decay of 1e-3 in a critic with
  layer norm (app. B); use discriminator.norm=none with d_optim.weight_decay=0.
- `wgan_gp_101`: the 101-layer networks for 64x64 (sec. 5.2), Adam 1e-4 with betas (0.5, 0.9), 200,000 updates (app. E).

Different here:

- Real images of `wgan_gp_resnet` are bytes / 127.5 - 1 plus the noise, up to 1 + 1/128. The authors' are bytes / 128 -
  1 plus the noise, up to 1.
- The paper does not say which weights decay, or how. Here all of the critic's weights do, through their gradients.
- CIFAR-10 replaces 32x32 ImageNet, on which the random architectures were trained.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.core.schedules import Linear
from equipoise.data import CIFAR10, Images
from equipoise.losses import GradientPenalty, Wasserstein
from equipoise.models import (
    BottleneckDiscriminator,
    BottleneckGenerator,
    Head,
    ResNetCritic,
    ResNetDiscriminator,
    ResNetGenerator,
    VariedDiscriminator,
    VariedGenerator,
)
from equipoise.rules import Adam, EMAConfig

__all__ = ["wgan_gp_101", "wgan_gp_resnet", "wgan_gp_resnet64", "wgan_gp_varied"]


def wgan_gp_resnet() -> TrainConfig:
    """WGAN-GP's ResNets (Gulrajani et al. 2017) on CIFAR-10: no norm in D, Adam 2e-4, which falls to 0."""
    kimg = 32_000  # 100,000 updates of G, 500,000 updates of D on 64 images
    adam = Adam(lr=Linear(start=2e-4, end=0.0, kimg=kimg), betas=(0.0, 0.9))
    return TrainConfig(
        data=CIFAR10(),
        generator=ResNetGenerator(width=128, channels="constant"),
        discriminator=ResNetDiscriminator(width=128, channels="constant", pool="mean"),
        loss=Wasserstein(),
        terms=(GradientPenalty(strength=10.0),),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        d_steps=5,
        batch_size=64,
        dequantise=1 / 128,
        g_batches=2,
        total_kimg=kimg,
    )


def wgan_gp_resnet64() -> TrainConfig:
    """WGAN-GP's ResNets of 64x64 (Gulrajani et al. 2017): layer norm in D, Adam 1e-4."""
    adam = Adam(lr=1e-4, betas=(0.0, 0.9))
    return replace(
        wgan_gp_resnet(),
        data=Images(path="photos", resolution=64),
        generator=ResNetGenerator(most=8),
        discriminator=ResNetCritic(),
        g_optim=adam,
        d_optim=adam,
        dequantise=0.0,
        g_batches=1,
        total_kimg=64_000,
    )


def wgan_gp_varied() -> TrainConfig:
    """WGAN-GP on any of its random architectures (Gulrajani et al. 2017): a DCGAN with settings, Adam 1e-4."""
    return replace(
        wgan_gp_resnet64(),
        data=CIFAR10(),
        generator=VariedGenerator(),
        discriminator=VariedDiscriminator(),
        head=Head(init_std=0.02),
        d_optim=Adam(lr=1e-4, betas=(0.0, 0.9), weight_decay=1e-3),
        total_kimg=32_000,
    )


def wgan_gp_101() -> TrainConfig:
    """WGAN-GP on 101-layer ResNets of 64x64 (Gulrajani et al. 2017): layer norm in D, Adam 1e-4 with beta1 0.5."""
    adam = Adam(lr=1e-4, betas=(0.5, 0.9))
    return replace(
        wgan_gp_resnet64(),
        generator=BottleneckGenerator(),
        discriminator=BottleneckDiscriminator(),
        g_optim=adam,
        d_optim=adam,
    )
