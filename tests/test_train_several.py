"""Several discriminators in the trainer: losses add up, and everything else sees all of their logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from reference import Reference, Watch, assert_gradients, batch, build, cross_entropy, small
from runs import assert_resumes, lines
from torch import nn

from equipoise.augment import ADA
from equipoise.core.types import component
from equipoise.losses import R1, FeatureMatching, Hinge, NonSaturating
from equipoise.losses import adversarial as losses
from equipoise.models import Auxiliary, DiscriminatorConfig, Head, Projection
from equipoise.nn import Discriminator
from equipoise.train import d_step, g_step


class TwoScales(nn.Module):
    """One discriminator on the image, one on its average over 2x2 pixels: a list of what they say."""

    def __init__(self, fine, coarse):
        super().__init__()
        self.fine, self.coarse = fine, coarse

    def forward(self, x, y=None):
        return [self.fine(x, y), self.coarse(F.avg_pool2d(x, 2), y)]


@component
class TwoScalesDiscriminator(DiscriminatorConfig):
    """A logit per patch of 4x4 values: of 8x8 images (N, 4) and (N, 1)."""

    width: int = 5

    def build(self, spec, head):
        def patches():
            body = nn.Sequential(nn.Conv2d(spec.channels, self.width, 4, stride=4), nn.Tanh())
            return Discriminator(body, head(self.width))

        return TwoScales(patches(), patches())


def two_scales(**changes):
    changes = {"discriminator": TwoScalesDiscriminator(), "terms": (R1(gamma=3.0, every=1),)} | changes
    return build(small(**changes), pixels=8)


def game(loss, real, fake):
    """L_D of one discriminator, with SAN's term, a mean over its own logits; and L_G."""
    d, g = loss.d(real.fun, fake.fun).mean(), loss.g(fake.fun, real.fun).mean()
    if real.dir is not None:
        d = d + loss.g(real.dir).mean() - loss.g(fake.dir).mean()
    return d, g


ON_TWO_SCALES = loop_over(
    ("loss", "san"),
    [(NonSaturating(), False), (Hinge(), True), (losses.RelativisticPairing(), False)],
    ids=["plain", "SAN", "paired"],
)


@ON_TWO_SCALES
def test_ds_gradient_is_that_of_the_sum_of_both_losses_and_a_penalty_on_all_logits(loss, san):
    gan, real = two_scales(loss=loss, head=Head(san=san)), batch(pixels=8)
    watch, reference = Watch(gan), Reference(gan)
    assert gan.critic(real.x, real.y).shape == (8, 4 + 1)
    stats = d_step(gan, real, 0)
    x = real.x.double().requires_grad_(True)
    on_real, on_fake = reference.logits(x), reference.logits(reference.images(watch.z[0]).detach())
    total = sum(game(loss, *scale)[0] for scale in zip(on_real, on_fake, strict=True))
    assert [scale.fun.shape for scale in on_real] == [(8, 4), (8, 1)]
    (slope,) = torch.autograd.grad(sum(scale.fun.sum() for scale in on_real), x, create_graph=True)
    square = slope.square().sum((1, 2, 3)).mean()
    assert_gradients(watch.gradients[0], reference.gradient("D", total + 3 / 2 * square), "D")
    assert stats["D/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert stats["D/R1"].item() == pytest.approx(square.item(), rel=1e-5)
    said = [logit for scale in on_real for logit in scale.fun.flatten().tolist()]  # each of the 5 of an image counts
    assert stats["D/real"].item() == pytest.approx(sum(said) / 40, rel=1e-5, abs=1e-7)
    assert stats["D/sign_real"].item() == pytest.approx(sum(math.copysign(1, logit) for logit in said) / 40)


@ON_TWO_SCALES
@loop_over("adversarial", [False, True], ids=["alone", "besides"])
def test_gs_gradient_is_that_of_both_losses_and_of_the_features_of_both(loss, san, adversarial):
    matching = FeatureMatching(strength=0.3, adversarial=adversarial)
    gan, real = two_scales(loss=loss, head=Head(san=san), terms=(matching,)), batch(pixels=8)
    watch, reference = Watch(gan), Reference(gan)
    stats = g_step(gan, real, 0)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0]))
    means = [[scale.features.mean(0) for scale in output] for output in (on_real, on_fake)]
    distance = sum((a - b).square().sum() for a, b in zip(*means, strict=True))
    assert [mean.shape for mean in means[0]] == [(5, 2, 2), (5, 1, 1)]
    total = 0.3 * distance
    if adversarial:
        total = total + sum(game(loss, *scale)[1] for scale in zip(on_real, on_fake, strict=True))
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert stats["G/FeatureMatching"].item() == pytest.approx(distance.item(), rel=1e-5)


def test_both_discriminators_name_the_class():
    """AC-GAN on two scales: both cross-entropies are minimised, the mean of both accuracies is reported."""
    gan = two_scales(head=Head(Auxiliary()), loss=Hinge(), terms=())
    real = batch(pixels=8)
    watch, reference = Watch(gan), Reference(gan)
    stats = d_step(gan, real, 0)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0], real.y).detach())
    total = sum(game(Hinge(), *scale)[0] for scale in zip(on_real, on_fake, strict=True))
    total = total + sum(cross_entropy(scale.classes, real.y) for scale in (*on_real, *on_fake))
    assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
    right = [row.argmax() == label for scale in on_real for row, label in zip(scale.classes, real.y, strict=True)]
    assert stats["D/accuracy"].item() == pytest.approx(sum(right).item() / 16)


def test_a_run_with_two_discriminators_resumes_bit_for_bit_and_adapts_to_all_logits(tmp_path):
    """With ADA, which goes by the signs of 49 + 9 logits an image, R1 through it, and feature matching."""
    changes = {
        "discriminator": TwoScalesDiscriminator(),
        "head": Head(Projection(), san=True),
        "terms": (R1(every=2), FeatureMatching()),
        "augment": ADA(kimg=0.2, target=-0.9),
    }
    assert_resumes(small(**changes, **{"report.log_kimg": 0.008}), tmp_path, ("G", "D", "ema", "augment"))
    written = lines(tmp_path / "whole")
    signs = [line["D/sign_real"] for line in written[:4]]  # ADA moves after four iterations
    assert written[3]["augment/r"] == pytest.approx(sum(signs) / 4, abs=1e-6)
    assert signs[0] * 8 * 58 == pytest.approx(round(signs[0] * 8 * 58), abs=1e-3)
    assert written[-1]["augment/p"] > 0
    assert {"D/sigma/fine.body.0", "D/sigma/coarse.head", "D/R1"} <= {name for line in written for name in line}
