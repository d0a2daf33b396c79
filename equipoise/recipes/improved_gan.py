"""Improved GAN (Salimans, Goodfellow, Zaremba, Cheung, Radford & Chen 2016) for any labelled images, by default the
digits.

Semi-supervised: D distinguishes K classes of real images and one class of generated images. D learns the classes from
100 labelled images, the same number per class. All other images count only as real.

As published: the K+1 classes and 100 labels (sec. 5 and 6.1), feature matching as G's only loss (sec. 3.1), weight
norm in D and batch norm in G, Adam 3e-4 with beta1 0.5, batch 100, z of length 100 (the authors' code for
convolutions; 3e-3 for their fully connected digits).

Different here:

- A DCGAN instead of their networks, without noise or dropout between D's layers and without data-dependent
  initialisation.
- The matched features are the features that the head reads.
- The distance between the means is a sum over features, as in the paper. The authors' code takes a mean: of squares for
  digits, of absolute values for SVHN and CIFAR-10.
- The learning rate is constant, as in their code for digits. For SVHN and CIFAR-10 theirs falls linearly to 0 over the
  last third of the run.
- z is normal instead of U[0, 1].
- The unsupervised part of D's loss is not halved.
- D classifies with its current weights. The authors classify with averaged weights.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import FeatureMatching, NonSaturating
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head, SemiSupervised
from equipoise.rules import Adam, EMAConfig
from equipoise.weights import WeightNorm

__all__ = ["improved_gan"]


def improved_gan() -> TrainConfig:
    """Semi-supervised GAN with feature matching (Salimans et al. 2016): K+1 classes from 100 labels, Adam 3e-4."""
    adam = Adam(lr=3e-4, betas=(0.5, 0.999))
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=100),
        discriminator=DCGANDiscriminator(norm="none"),
        head=Head(SemiSupervised(labelled=100), init_std=0.02),
        loss=NonSaturating(),
        terms=(FeatureMatching(adversarial=False),),
        d_normalizer=WeightNorm(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        batch_size=100,
        total_kimg=500,
    )
