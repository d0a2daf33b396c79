"""A GAN of points in the plane: the two steps of the trainer, on a toy distribution instead of images.

from equipoise.data import Grid, Points
from equipoise.lab.points.gan import PointGAN, plain_gan

gan = PointGAN(replace(plain_gan(), data=Points(of=Grid()), terms=(R1(gamma=1.0, every=1),)))
for _ in range(3000):
    gan.iterate()
gan.samples(1000)  # (1000, 2)
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from equipoise.augment import InstanceNoise, NoAugment
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch, stream
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import Distribution, Points
from equipoise.losses import Saturating, logits
from equipoise.models import MLPDiscriminator, MLPGenerator, NoConditioning
from equipoise.rules import Adam, EMAConfig, Rounds
from equipoise.train import GAN, d_step, g_step

__all__ = ["PointGAN", "plain_gan"]


def plain_gan() -> TrainConfig:
    """The GAN of Goodfellow et al. (2014) on a ring: minimax loss, perceptrons of three hidden layers, Adam.

    Learning rates are 25 times the ones for images. A network of this size bears them, and learns in half a minute.
    """
    adam = Adam(lr=5e-3, betas=(0.0, 0.9))
    return TrainConfig(
        data=Points(),
        generator=MLPGenerator(z_dim=2, width=64, depth=3, output="linear"),
        discriminator=MLPDiscriminator(width=64, depth=3),
        loss=Saturating(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10.0),
        d_steps=2,
        batch_size=128,
        total_kimg=1000,
    )


class PointGAN:
    """The GAN that `cfg` describes, in training on the points of its data.

    `nimg` counts the points shown to D, as the trainer counts images. Equal configs train equally, whatever else the
    process draws.

    Raises:
        ValueError: if the config's data are not points, or a field is meant for images or for long runs.
    """

    def __init__(self, cfg: TrainConfig):
        self.cfg, self.distribution = cfg, points_of(cfg)
        with torch.random.fork_rng(devices=[]):
            self.gan = GAN.build(cfg, ImageSpec(resolution=1, channels=self.distribution.dim))
        self.ema = cfg.ema.build(self.gan.G)
        self.nimg = 0

    def change(self, cfg: TrainConfig) -> None:
        """Continue under other losses, penalties, learning rates or data, with the networks as they are.

        Raises:
            ValueError: as the constructor, or for another network, normaliser, head, optimiser or seed: these are made
                together with the GAN.
        """
        for field in ("generator", "discriminator", "head", "g_normalizer", "d_normalizer", "seed"):
            if getattr(cfg, field) != getattr(self.cfg, field):
                raise ValueError(f"{field} cannot change while the GAN is trained: start a new one")
        for field in ("g_optim", "d_optim"):
            if type(getattr(cfg, field)) is not type(getattr(self.cfg, field)):
                raise ValueError(f"{field} cannot become another optimiser while the GAN is trained: start a new one")
        distribution = points_of(cfg)
        if distribution.dim != self.distribution.dim:
            raise ValueError(
                f"data of {distribution.dim} dimensions need other networks than data of {self.distribution.dim} "
                "dimensions: start a new GAN"
            )
        gan = replace(self.gan, cfg=cfg, augment=cfg.augment.build())
        gan.recall(self.gan)
        for optimizer, optim in ((gan.g_optim, cfg.optim("G")), (gan.d_optim, cfg.optim("D"))):
            settings = optim.build(nn.Linear(1, 1)).defaults  # includes eps and alpha, which no schedule sets
            for group in optimizer.param_groups:
                group.update(settings)
        self.ema.halflife_kimg, self.ema.rampup = cfg.ema.halflife_kimg, cfg.ema.rampup
        self.cfg, self.distribution, self.gan = cfg, distribution, gan

    def iterate(self) -> dict[str, float]:
        """Make D's updates, then one update of G. Returns the trainer's statistics of the last updates."""
        cfg, gan, start = self.cfg, self.gan, self.nimg
        rounds = Rounds(cfg.d_steps)
        with torch.random.fork_rng(devices=[]):
            seed_torch(cfg.seed, Purpose.DRAWS, 0, start)
            cfg.optim("G").apply(gan.g_optim, start)
            for _ in rounds:
                cfg.optim("D").apply(gan.d_optim, self.nimg)
                gan.augment.at(self.nimg)
                batch = self.batch(cfg.batch_size, Purpose.POINTS)
                stats = d_step(gan, batch, self.nimg)
                self.nimg += cfg.batch_size
                rounds.note(stats, self.nimg)
            stats = stats | g_step(gan, batch, start)
        self.ema.update(gan.G, self.nimg, self.nimg - start)
        return {name: float(value) for name, value in stats.items()}

    def batch(self, num: int, purpose: Purpose) -> Batch:
        """Draw real points (num, dim, 1, 1) for `purpose` at this moment of training."""
        points = self.distribution.sample(num, stream(self.cfg.seed, purpose, self.nimg))
        return Batch(points[:, :, None, None])

    @torch.no_grad()
    def samples(self, num: int) -> Tensor:
        """Draw points (num, dim) from the averaged generator, with the same latents at every call."""
        config, source = self.cfg.generator, stream(self.cfg.seed, Purpose.SAMPLES)
        z = config.prior.draw(num, config.z_dim, generator=source)
        points: Tensor = self.ema.model(z, None)
        return points.flatten(1)

    def value(self, x: Tensor) -> Tensor:
        """D's logit of points (N, dim) -> (N,), differentiable in x. The call leaves D as it was."""
        D, training = self.gan.D, self.gan.D.training
        D.eval()  # in training every forward moves the singular vectors of spectral norm
        try:
            return logits(D(x[:, :, None, None], None)).squeeze(1)
        finally:
            D.train(training)


def points_of(cfg: TrainConfig) -> Distribution:
    """The distribution that `cfg` trains on. Raises ValueError for settings that a GAN of points cannot use."""
    if not isinstance(cfg.data, Points):
        raise ValueError(f"expected points, such as data=Points(of=Ring), got data={cfg.data!r}")
    if not isinstance(cfg.augment, NoAugment | InstanceNoise):
        raise ValueError(f"augment={cfg.augment!r} is for images; points take augment=InstanceNoise or none")
    if cfg.start is not None:
        raise ValueError(f"start={cfg.start!r} starts from a run, and points have none: leave it out")
    if cfg.head.conditioning != NoConditioning():
        raise ValueError(f"points have no classes, and head.conditioning={cfg.head.conditioning!r} needs them")
    return cfg.data.of
