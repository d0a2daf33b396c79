"""SAN's digits (Takida, Imaizumi, Shibuya et al. 2024), and the GAN that the paper compares SAN with.

As published: networks, hinge loss, spectral norm, Adam 1e-3 with betas (0, 0.99), batch 128, z of length 100.

Different here:

- The last layer starts at N(0, 1/F) instead of N(0, 1). N(0, 1/F) was ahead after 64 kimg in the one comparison made
  (docs/results.md).
- Samples come from the averaged generator.
- Images are in [-1, 1], and G ends in tanh.
- The bundled 10,000 digits replace MNIST's 60,000 (data=MNIST has all), for the same number of epochs.
- Generated images take the labels of the real batch.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import Hinge
from equipoise.models import Head, PerClass, SANDigitsDiscriminator, SANDigitsGenerator
from equipoise.rules import Adam
from equipoise.weights import SpectralNorm

__all__ = ["gan_digits", "san_digits", "san_digits_conditional"]


def gan_digits() -> TrainConfig:
    """The plain GAN of SAN's digits (Takida et al. 2024): hinge loss, spectral norm, Adam 1e-3."""
    adam = Adam(lr=1e-3, betas=(0.0, 0.99))
    return TrainConfig(
        data=Digits(),
        generator=SANDigitsGenerator(),
        discriminator=SANDigitsDiscriminator(),
        loss=Hinge(),
        d_normalizer=SpectralNorm(skip=("body.0", "head.*")),
        g_optim=adam,
        d_optim=adam,
        batch_size=128,
        total_kimg=2000,
    )


def san_digits() -> TrainConfig:
    """SAN on digits (Takida et al. 2024): `gan_digits` with a slicing head, nothing else."""
    return replace(gan_digits(), head=Head(san=True))


def san_digits_conditional() -> TrainConfig:
    """SAN on labelled digits (Takida et al. 2024): one direction per class."""
    return replace(gan_digits(), head=Head(PerClass(), san=True))
