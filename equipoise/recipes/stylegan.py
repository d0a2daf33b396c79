"""StyleGAN (Karras, Laine & Aila 2019), by default the digits at 32x32.

    equipoise train stylegan runs/photos 'data=Images(path="photos", resolution=256)' data.mirror=true
    equipoise sample runs/photos --truncation-psi 0.7 --cutoff 8

As published for FFHQ (configuration F, for 8 GPUs): a mapping of eight layers that learns at a hundredth of the speed,
a style after each layer, noise, style mixing with probability 0.9; growth from 8x8, each size fading in over 600
thousand images and trained on 600 thousand more; batches of 256 at 8x8, 128, 64 and 32 from 64x64 on; the
non-saturating loss with R1 of gamma 10 at every update; equalised learning rates, Adam 1e-3 with betas (0, 0.99), whose
state is cleared when a size starts or ends fading in; an average of G of half-life 10 kimg; 25,000 kimg. From 128x128
on the learning rate follows the size in use: `stylegan(resolution=1024)` in Python.

Different here:

- From the command line the learning rate stays 1e-3 at all sizes: a schedule knows the images seen, and not the size
  that the data end with. The authors' is 1.5e-3 at 128x128, 2e-3 at 256x256 and 3e-3 beyond.
- Real images are not mirrored unless `data.mirror=true`. The authors mirror FFHQ.
- Level of detail, batch size and learning rate follow every batch. In the authors' code they follow every fourth.
- Generated images have the labels of the real batch. In the authors' code they are drawn from the data anew.
- The average follows G after its update; in the authors' code, before it.
- With classes, `head.conditioning=PerClass` is the published D but for a bias of each class.
- Truncation is an option when sampling. In the authors' code psi 0.7 for the first 8 layers is the default.
"""

from __future__ import annotations

from itertools import pairwise

from equipoise.config import TrainConfig
from equipoise.core.schedules import Schedule, Steps
from equipoise.data import Padded
from equipoise.losses import R1, NonSaturating
from equipoise.models import StyleGAN1Discriminator, StyleGAN1Generator
from equipoise.rules import Adam, EMAConfig, ProgressiveGrowing, Report

__all__ = ["stylegan"]

GROWTH = ProgressiveGrowing(initial=8, stable_kimg=600, fade_kimg=600, batch_sizes=((16, 128), (32, 64), (64, 32)))
RATES = ((0, 1e-3), (128, 1.5e-3), (256, 2e-3), (512, 3e-3))
"""Pixels, and the learning rate from this size on."""


def stylegan(resolution: int = 32) -> TrainConfig:
    """StyleGAN (Karras et al. 2019): styles, noise, growth from 8x8, R1 with gamma 10, Adam 1e-3."""
    adam = Adam(lr=_learning_rate(resolution), betas=(0.0, 0.99))
    return TrainConfig(
        data=Padded(resolution=resolution),
        generator=StyleGAN1Generator(),
        discriminator=StyleGAN1Discriminator(),
        loss=NonSaturating(),
        terms=(R1(gamma=10.0, every=1),),
        growth=GROWTH,
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10.0, rampup=None),
        batch_size=256,
        total_kimg=25000,
        report=Report(snapshot_kimg=200),
    )


def _learning_rate(resolution: int) -> Schedule:
    """The rate of the size in use, which changes when a size begins to fade in."""
    doublings = GROWTH.doublings(resolution)
    sizes = [resolution >> (doublings - k) for k in range(doublings + 1)]
    start, *rates = [[rate for pixels, rate in RATES if pixels <= size][-1] for size in sizes]
    period = GROWTH.stable_kimg + GROWTH.fade_kimg
    begins = [k * period + GROWTH.stable_kimg for k in range(doublings)]
    changes = zip(begins, pairwise([start, *rates]), strict=True)
    steps = tuple((kimg, after) for kimg, (before, after) in changes if before != after)
    return Steps(start=start, steps=steps) if steps else start
