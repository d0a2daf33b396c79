"""StyleGAN3 (Karras, Aittala, Laine, Härkönen, Hellsten, Lehtinen & Aila 2021), by default the digits at 32x32.

    equipoise train stylegan3_t runs/photos 'data=Images(path="photos", resolution=256)' terms.0.term.gamma=2
    equipoise train stylegan3_small runs/small data=photos data.resolution=64 augment=ADA

As published, in the form of the authors' code:

- Both: two layers of mapping, a Fourier input, layers whose leaky ReLU is applied at a higher rate between two low-pass
  filters; D is StyleGAN2's, with residuals; the non-saturating loss, lazy R1 every 16 updates in an optimiser step of
  its own (`LazyStep`), no path lengths, no style mixing; Adam with betas (0, 0.99), learning rate 2.5e-3 for G and 2e-3
  for D; batch 32; an average of half-life 10 batch / 32 kimg, at most 5 % of the images seen; ADA with target 0.6.
- `stylegan3_t`: 3x3 convolutions. Images move with the input.
- `stylegan3_r`: 1x1 convolutions of twice the width, radial filters. Images also turn with the input. D first sees
  blurred images, of 10 pixels, fading over 200 batch / 32 kimg.

gamma depends on the data, and the authors ask for it. The default here is their value for 128x128 at batch 32, 0.5,
scaled by size²: 2 at 256x256, 8 at 512x512, 32 at 1024x1024 (`ByResolution`).

`stylegan3_small` is not published. It is chosen so that two cores can train it at 32x32 and 64x64: a StyleGAN3-T of
eight layers, 64 channels or fewer, styles of length 128, margins of 6 samples, no clamp, without ADA. Batch, learning
rates, mixing and gamma as in `stylegan2_small`.

Different here:

- D's update comes before G's in an iteration, as in `stylegan2`, and the other differences named there.
- Layers whose sampling rate is high are float16 in the authors' code on GPUs. Here `compute.precision` decides.
- The averages of a layer's magnitude are over all processes. The authors' are each process's own, and the first one's
  are saved.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.augment import ADA, Chain, FadingBlur
from equipoise.config import TrainConfig
from equipoise.data import Padded
from equipoise.losses import R1, ByResolution, LazyStep, NonSaturating
from equipoise.models import StyleGAN2Discriminator, StyleGAN3Generator
from equipoise.rules import Adam, EMAConfig, Report

from .stylegan2 import stylegan2_small

__all__ = ["stylegan3_r", "stylegan3_small", "stylegan3_t"]

BATCH = 32
GAMMA = ByResolution(0.5 * BATCH / 128**2)
"""0.5 at 128x128 with batches of 32."""
MAGNITUDE_BETA = 0.5 ** (BATCH / 20000)
PUBLISHED_ADA = ADA(target=0.6, kimg=500.0, most=None, all_passes=True)


def stylegan3_t() -> TrainConfig:
    """StyleGAN3-T (Karras et al. 2021): images move with the input. Adam 2.5e-3 and 2e-3, gamma by resolution."""
    return TrainConfig(
        data=Padded(),
        generator=StyleGAN3Generator(magnitude_ema_beta=MAGNITUDE_BETA),
        discriminator=StyleGAN2Discriminator(conv_clamp=256.0),
        loss=NonSaturating(),
        terms=(LazyStep(R1(gamma=GAMMA, every=16)),),
        augment=PUBLISHED_ADA,
        g_optim=Adam(lr=2.5e-3, betas=(0.0, 0.99)),
        d_optim=Adam(lr=2e-3, betas=(0.0, 0.99)),
        ema=EMAConfig(halflife_kimg=10.0, rampup=0.05),
        batch_size=BATCH,
        total_kimg=25000,
        report=Report(snapshot_kimg=200),
    )


def stylegan3_r() -> TrainConfig:
    """StyleGAN3-R (Karras et al. 2021): images move and turn with the input. 1x1 convolutions, radial filters."""
    cfg = stylegan3_t()
    return replace(
        cfg,
        generator=StyleGAN3Generator(
            kernel=1, radial=True, channel_base=65536, channel_max=1024, magnitude_ema_beta=MAGNITUDE_BETA
        ),
        augment=Chain((FadingBlur(sigma=10.0, kimg=200 * BATCH / 32), PUBLISHED_ADA)),
    )


def stylegan3_small() -> TrainConfig:
    """StyleGAN3-T for two cores (Karras et al. 2021): eight layers of at most 64 channels, styles of length 128."""
    small = stylegan2_small()
    r1, _ = small.terms
    return replace(
        small,
        generator=StyleGAN3Generator(
            z_dim=128,
            w_dim=128,
            mapping_lr=1.0,
            channel_base=1024,
            channel_max=64,
            layers=8,
            margin=6,
            conv_clamp=None,
            magnitude_ema_beta=0.5 ** (small.batch_size / 20000),
            mixing=0.5,
        ),
        terms=(r1,),
    )
