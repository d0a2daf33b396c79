"""BigGAN and BigGAN-deep (Brock, Donahue & Simonyan 2019) for labelled images of any size, published for 128 to 512.

As published for 128x128: networks, hinge loss, spectral norm on every weight but G's class embedding, projection,
orthogonal weights, their off-diagonal regularisation in G with 1e-4, Adam 5e-5 for G and 2e-4 for D with betas (0,
0.999), two updates of D for one of G, batch 2048, batch norm over all processes, an average of G that keeps 0.9999 per
update of G (app. C), 165 thousand updates of G (table 1).

For other sizes: generator.z_dim=140 for 256 and 160 for 512 pixels; `biggan_deep` above 128 pixels takes 2.5e-5 for
both players.

`biggan_cifar` takes the numbers of the authors' code for CIFAR-10: width 64, z of length 128, no attention, no
regulariser, Adam 2e-4 for both, four updates of D, batch 50, 500 epochs. The authors' G differs: it has a table of
gains per class and all of z in its linear layer, like SAGAN's with attention=0, and N(0, 0.02²) weights.

`biggan_small` is for two cores, 28x28 to 64x64: a twelfth of the width, attention at 16x16, batch 64, one update of D,
4e-4 for both players, and a z of length 20. e(y) starts with length 1. With chunks of a longer z, and G's usual 1e-4,
e(y) had no effect within 800 updates, and G ignored the class (docs/results.md).

Different here:

- The average starts at once. Its half-life is a tenth of the images seen, until it reaches the paper's.
- The regulariser sees the weights that G computes with, after spectral norm.
- The head is without a bias, and starts from N(0, 1/F).
- Generated images take the labels of the real batch.
- The default data are the bundled digits. Such a network is far too large for them.
"""

from __future__ import annotations

import math
from dataclasses import replace

from equipoise.config import TrainConfig
from equipoise.data import CIFAR10, Digits
from equipoise.losses import Hinge, Orthogonal
from equipoise.models import (
    BigGANDeepDiscriminator,
    BigGANDeepGenerator,
    BigGANDiscriminator,
    BigGANGenerator,
    Head,
    Projection,
)
from equipoise.rules import Adam, EMAConfig
from equipoise.weights import SpectralNorm

__all__ = ["biggan", "biggan_cifar", "biggan_deep", "biggan_small"]

WIDTH = 8
"""Width of the small networks. 16 took twice the time on 64x64 images."""


def _kept(share: float, batch_size: int, d_steps: int) -> EMAConfig:
    """An average that keeps `share` per update of G, once its half-life is below a tenth of the images seen."""
    return EMAConfig(halflife_kimg=math.log(0.5) / math.log(share) * batch_size * d_steps / 1000, rampup=0.1)


def biggan() -> TrainConfig:
    """Large batches, z and a shared embedding in every block (Brock et al. 2019): SN, orthogonal, batch 2048."""
    return TrainConfig(
        data=Digits(),
        generator=BigGANGenerator(norm="sync_batch"),
        discriminator=BigGANDiscriminator(),
        head=Head(Projection()),
        loss=Hinge(),
        terms=(Orthogonal(strength=1e-4, player="G"),),
        g_normalizer=SpectralNorm(skip=("embed",)),
        d_normalizer=SpectralNorm(),
        g_optim=Adam(lr=5e-5, betas=(0.0, 0.999)),
        d_optim=Adam(lr=2e-4, betas=(0.0, 0.999)),
        ema=_kept(0.9999, 2048, 2),
        d_steps=2,
        batch_size=2048,
        total_kimg=165 * 2 * 2048,
    )


def biggan_deep() -> TrainConfig:
    """Deeper, with bottlenecks and half the weights (Brock et al. 2019): otherwise `biggan`."""
    return replace(
        biggan(),
        generator=BigGANDeepGenerator(norm="sync_batch"),
        discriminator=BigGANDeepDiscriminator(),
    )


def biggan_cifar() -> TrainConfig:
    """BigGAN for CIFAR-10, by its authors' code (Brock et al. 2019): Adam 2e-4, 4 updates of D, batch 50."""
    adam = Adam(lr=2e-4, betas=(0.0, 0.999))
    return replace(
        biggan(),
        data=CIFAR10(),
        generator=BigGANGenerator(z_dim=128, width=64, attention=0),
        discriminator=BigGANDiscriminator(width=64, attention=0),
        terms=(),
        g_optim=adam,
        d_optim=adam,
        ema=_kept(0.9999, 50, 4),
        d_steps=4,
        batch_size=50,
        total_kimg=500 * 50,
    )


def biggan_small() -> TrainConfig:
    """BigGAN for two cores (Brock et al. 2019): a twelfth of the width, z of length 20, batch 64, Adam 4e-4."""
    return replace(
        biggan(),
        generator=BigGANGenerator(z_dim=20, width=WIDTH, embed=32, attention=16),
        discriminator=BigGANDiscriminator(width=WIDTH, attention=16),
        g_optim=Adam(lr=4e-4, betas=(0.0, 0.999)),
        d_optim=Adam(lr=4e-4, betas=(0.0, 0.999)),
        ema=EMAConfig(halflife_kimg=10),
        d_steps=1,
        batch_size=64,
        total_kimg=1000,
    )
