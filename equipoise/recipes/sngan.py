"""SN-GAN (Miyato, Kataoka, Koyama & Yoshida 2018) at the size of digits.

As published: spectral norm in D in place of batch norm, with one power iteration per update (alg. 1).

Different here:

- Networks and optimiser come from `dcgan_digits`; the paper does not train on digits.
- With the projection discriminator (Miyato & Koyama 2018), G reads the class one-hot beside z. The paper's G reads it
  in its norms.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.models import Head, Projection, TinyDigitsDiscriminator
from equipoise.weights import SpectralNorm

from .dcgan import dcgan_digits

__all__ = ["sngan_digits", "sngan_digits_conditional"]


def sngan_digits() -> TrainConfig:
    """SN-GAN on digits (Miyato et al. 2018): the DCGAN with spectral instead of batch norm in D."""
    return replace(dcgan_digits(), discriminator=TinyDigitsDiscriminator(), d_normalizer=SpectralNorm())


def sngan_digits_conditional() -> TrainConfig:
    """SN-GAN with a projection discriminator on labelled digits (Miyato & Koyama 2018)."""
    return replace(sngan_digits(), head=Head(Projection(), init_std=0.02))
