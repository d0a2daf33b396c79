"""AC-GAN (Odena, Olah & Shlens 2017) for any labelled images, by default the digits.

As published: a classifier beside D's verdict (sec. 3; both players minimise its cross-entropy on real and generated
images), the class one-hot beside a z of length 100, batch norm in both networks, N(0, 0.02²) initialisation, Adam
2e-4 with betas (0.5, 0.999), batch 100 (appendix; its learning rates are 1e-4 to 3e-4).

Different here:

- D is a DCGAN's. The paper's D has more layers, dropout 0.5 after each and noise on its activations.
- Generated images take the labels of the real batch.
"""

from __future__ import annotations

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import NonSaturating
from equipoise.models import Auxiliary, DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import Adam, EMAConfig

__all__ = ["acgan"]


def acgan() -> TrainConfig:
    """AC-GAN (Odena et al. 2017): D also names the class, on a labelled DCGAN, Adam 2e-4 with beta1 0.5."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(z_dim=100),
        discriminator=DCGANDiscriminator(norm="batch"),
        head=Head(Auxiliary(), init_std=0.02),
        loss=NonSaturating(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=0),
        batch_size=100,
        total_kimg=500,
    )
