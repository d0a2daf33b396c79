"""StyleGAN2 (Karras, Laine, Aittala, Hellsten, Lehtinen & Aila 2020) and StyleGAN2-ADA (Karras, Aittala, Hellsten,
Laine, Lehtinen & Aila 2020), by default the digits at 32x32.

    equipoise train stylegan2_ada runs/photos 'data=Images(path="photos", resolution=256)' data.mirror=true
    equipoise train stylegan2_small runs/small data=photos data.resolution=64 augment=ADA

As published, in the form of the authors' PyTorch code:

- All: a mapping of z to w, modulated convolutions with noise, equalised learning rates; the non-saturating loss; style
  mixing with probability 0.9; lazy R1 every 16 updates and path length regularisation of strength 2 every 4, each in an
  optimiser step of its own (`LazyStep`), on half a batch for path lengths; Adam with betas (0, 0.99), its learning rate
  and betas corrected for these steps; an average of G.
- `stylegan2`: configuration F, for 8 GPUs: batch 32, learning rate 2e-3, gamma 10, 8 layers of mapping, G without and D
  with residuals, an average of half-life 10 kimg.
- `stylegan2_paper256`, `stylegan2_paper512`, `stylegan2_paper1024`: the same for images of these sizes, with the batch,
  gamma, groups and width of the experiments of StyleGAN2-ADA.
- `stylegan2_cifar`: CIFAR-10 with classes: 512 channels at every size, D without residuals, groups of 32, gamma 0.01,
  neither style mixing nor path lengths, an average of half-life 500 kimg, ADA.
- `stylegan2_ada`: the automatic configuration, a function of resolution and batch: width and learning rate by
  resolution, gamma 0.0002 size² / batch, groups of 4, an average of half-life 10 batch / 32 kimg, at most 5 % of the
  images seen, ADA with target 0.6. `stylegan2_ada(resolution=256)` in Python; from the command line, the values for
  32x32 hold up to 256x256, but for the batch, which is 64 at 128x128 and below on two GPUs and 16 per GPU at 256x256.

`stylegan2_small` is not published. It is chosen so that two cores can train it at 32x32 and 64x64, in a hundredth of
the published length. Against `stylegan2_ada` it has an eighth of the width or less, styles of length 128, batches of
16, twice the learning rate (5e-3) in the mapping too, gamma 0.3 at 32x32, path lengths every 8 updates, mixed styles in
half of the images; it lacks noise, ADA and the clamp. The changes were made on emoji at 32x32, one run each: with the
settings of `stylegan2_ada`, images were strokes of one kind after 46 kimg. docs/results.md has trials and distances.

Different here:

- D's update comes before G's in an iteration. In the authors' code it is the other way round: the same alternation,
  half an iteration later.
- A diverged run stops. The authors' code replaces gradients that are not finite before every step.
- Half precision is a choice of the machine, `compute.precision`. The authors' code computes the four largest sizes in
  float16 and clamps activations at 256 for it; the clamp is kept.
- Generated images have the labels of the real batch. In the authors' code they are drawn from the data anew.
- The half-life of the average follows the images seen after an iteration; in the authors' code, before it.
"""

from __future__ import annotations

from dataclasses import replace

from equipoise.augment import ADA, NoAugment
from equipoise.config import TrainConfig
from equipoise.data import CIFAR10, Images, Padded
from equipoise.losses import R1, ByResolution, LazyStep, NonSaturating, PathLength
from equipoise.models import Head, MappedProjection, StyleGAN2Discriminator, StyleGAN2Generator
from equipoise.rules import Adam, EMAConfig, Report

__all__ = [
    "stylegan2",
    "stylegan2_ada",
    "stylegan2_cifar",
    "stylegan2_paper256",
    "stylegan2_paper512",
    "stylegan2_paper1024",
    "stylegan2_small",
]

CLAMP = 256.0
"""Bound of activations in networks that the authors train with float16."""
SMALL_GAMMA = ByResolution(0.3 * 16 / 32**2)
"""0.3 at 32x32 with batches of 16."""
PUBLISHED_ADA = ADA(target=0.6, kimg=500.0, most=None, all_passes=True)


def stylegan2() -> TrainConfig:
    """StyleGAN2, configuration F (Karras et al. 2020): batch 32, gamma 10, path lengths, Adam 2e-3."""
    adam = Adam(lr=2e-3, betas=(0.0, 0.99))
    return TrainConfig(
        data=Padded(),
        generator=StyleGAN2Generator(conv_clamp=CLAMP),
        discriminator=StyleGAN2Discriminator(conv_clamp=CLAMP),
        loss=NonSaturating(),
        terms=(LazyStep(R1(gamma=10.0, every=16)), LazyStep(PathLength(strength=2.0, every=4))),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10.0, rampup=None),
        batch_size=32,
        total_kimg=25000,
        report=Report(snapshot_kimg=200),
    )


def _preset(*, gamma: float, batch: int, lr: float, group: int, base: int, halflife: float) -> TrainConfig:
    """`stylegan2` with the numbers in which the presets differ. base: 32768 is the full width."""
    adam, cfg = Adam(lr=lr, betas=(0.0, 0.99)), stylegan2()
    return replace(
        cfg,
        generator=StyleGAN2Generator(channel_base=base, conv_clamp=CLAMP),
        discriminator=StyleGAN2Discriminator(channel_base=base, conv_clamp=CLAMP, group_size=group),
        terms=(LazyStep(R1(gamma=gamma, every=16)), LazyStep(PathLength(strength=2.0, every=4))),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=halflife, rampup=None),
        batch_size=batch,
    )


def stylegan2_paper256() -> TrainConfig:
    """StyleGAN2 for 256x256 (Karras et al. 2020): half the width, batch 64, gamma 1, Adam 2.5e-3."""
    cfg = _preset(gamma=1.0, batch=64, lr=2.5e-3, group=8, base=16384, halflife=20.0)
    return replace(cfg, data=Images(path="photos", resolution=256))


def stylegan2_paper512() -> TrainConfig:
    """StyleGAN2 for 512x512 (Karras et al. 2020): batch 64, gamma 0.5, Adam 2.5e-3."""
    cfg = _preset(gamma=0.5, batch=64, lr=2.5e-3, group=8, base=32768, halflife=20.0)
    return replace(cfg, data=Images(path="photos", resolution=512))


def stylegan2_paper1024() -> TrainConfig:
    """StyleGAN2 for 1024x1024 (Karras et al. 2020): batch 32, gamma 2, Adam 2e-3."""
    cfg = _preset(gamma=2.0, batch=32, lr=2e-3, group=4, base=32768, halflife=10.0)
    return replace(cfg, data=Images(path="photos", resolution=1024))


def stylegan2_cifar() -> TrainConfig:
    """StyleGAN2 for CIFAR-10 with classes (Karras et al. 2020): 512 channels, gamma 0.01, no path lengths, ADA."""
    adam, cfg = Adam(lr=2.5e-3, betas=(0.0, 0.99)), stylegan2()
    return replace(
        cfg,
        data=CIFAR10(),
        generator=StyleGAN2Generator(mapping_layers=2, conv_clamp=CLAMP, mixing=0.0),
        discriminator=StyleGAN2Discriminator(architecture="orig", conv_clamp=CLAMP, group_size=32),
        head=Head(MappedProjection()),
        terms=(LazyStep(R1(gamma=0.01, every=16)),),
        augment=PUBLISHED_ADA,
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=500.0, rampup=0.05),
        batch_size=64,
        total_kimg=100000,
    )


def stylegan2_ada(resolution: int = 32, batch: int = 32) -> TrainConfig:
    """StyleGAN2-ADA's automatic configuration (Karras et al. 2020): everything by resolution and batch, ADA 0.6."""
    adam, cfg = Adam(lr=2e-3 if resolution >= 1024 else 2.5e-3, betas=(0.0, 0.99)), stylegan2()
    base = 32768 if resolution >= 512 else 16384
    return replace(
        cfg,
        data=Padded(resolution=resolution),
        generator=StyleGAN2Generator(mapping_layers=2, channel_base=base, conv_clamp=CLAMP),
        discriminator=StyleGAN2Discriminator(channel_base=base, conv_clamp=CLAMP, group_size=min(batch, 4)),
        terms=(
            LazyStep(R1(gamma=ByResolution(0.0002), every=16)),
            LazyStep(PathLength(strength=2.0, every=4)),
        ),
        augment=PUBLISHED_ADA,
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10 * batch / 32, rampup=0.05),
        batch_size=batch,
    )


def stylegan2_small(resolution: int = 32, batch: int = 16) -> TrainConfig:
    """StyleGAN2 for two cores (Karras et al. 2020): 64 channels up to 16x16, 16 at 64x64, Adam 5e-3, no noise."""
    adam = Adam(lr=5e-3, betas=(0.0, 0.99))
    return replace(
        stylegan2_ada(resolution, batch),
        generator=StyleGAN2Generator(
            z_dim=128,
            w_dim=128,
            mapping_layers=2,
            mapping_lr=1.0,
            channel_base=1024,
            channel_max=64,
            noise=False,
            mixing=0.5,
        ),
        discriminator=StyleGAN2Discriminator(channel_base=1024, channel_max=64, group_size=min(batch, 4)),
        terms=(LazyStep(R1(gamma=SMALL_GAMMA, every=16)), LazyStep(PathLength(strength=2.0, every=8))),
        augment=NoAugment(),
        g_optim=adam,
        d_optim=adam,
        ema=EMAConfig(halflife_kimg=10.0, rampup=0.05),
        total_kimg=400,
        report=Report(snapshot_kimg=10),
    )
