"""A recipe small enough to run to its end in a second, used as `tests/tiny.py:recipe` and from Python."""

from equipoise.config import TrainConfig
from equipoise.data import Digits
from equipoise.losses import Hinge
from equipoise.models import Head, Projection, SANDigitsDiscriminator, SANDigitsGenerator
from equipoise.rules import Adam, EMAConfig, Report
from equipoise.weights import SpectralNorm


def recipe() -> TrainConfig:
    return TrainConfig(
        data=Digits(),
        generator=SANDigitsGenerator(z_dim=4, width=2),
        discriminator=SANDigitsDiscriminator(width=2),
        head=Head(Projection(), san=True),
        loss=Hinge(),
        d_normalizer=SpectralNorm(skip=("body.0",)),
        g_optim=Adam(lr=1e-3),
        d_optim=Adam(lr=1e-3),
        ema=EMAConfig(halflife_kimg=0.05),
        batch_size=8,
        total_kimg=0.16,
        report=Report(log_kimg=0.032, snapshot_kimg=0.04, minutes=None, checkpoint_minutes=None),  # by images alone
    )
