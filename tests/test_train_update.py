"""An update is made with the numbers of its moment and its player: weights of terms, noise, normalisers, optimisers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from reference import SPEC, Reference, Watch, assert_gradients, batch, build, cross_entropy, small
from torch.nn.utils import parametrize

from equipoise.augment import InstanceNoise
from equipoise.compute.settings import Compute
from equipoise.core.schedules import Linear
from equipoise.core.types import Batch, Logits
from equipoise.losses import FeatureMatching, GradientPenalty
from equipoise.losses.players import ClassLoss
from equipoise.models import Auxiliary, Head, SemiSupervised
from equipoise.rules import EMA, Adam, RMSprop
from equipoise.train import GAN, d_step, g_step, train
from equipoise.weights import NoNormalizer, WeightNorm


@loop_over(("nimg", "weight"), [(0, 0.5), (8, 2.0), (16, 3.5), (80, 3.5)])
def test_a_term_of_the_loss_has_the_weight_of_its_moment(nimg, weight):
    """Wrong: the weight that the schedule begins with, at every update."""
    gan, real = build(small(terms=(FeatureMatching(strength=Linear(start=0.5, end=3.5, kimg=0.016)),))), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = g_step(gan, real, nimg)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0]))
    distance = (on_real.features.mean(0) - on_fake.features.mean(0)).square().sum()
    total = F.softplus(-on_fake.fun).mean() + weight * distance
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert stats["G/FeatureMatching"].item() == pytest.approx(distance.item(), rel=1e-4)


@loop_over(("nimg", "weight"), [(0, 0.5), (8, 2.0), (80, 3.5)])
def test_a_penalty_has_the_weight_of_its_moment(nimg, weight):
    """Its own backward has it: the gradient is that of a penalty whose weight is constant and the same."""
    found = []
    for strength in (Linear(start=0.5, end=3.5, kimg=0.016), weight, 0.0):
        gan = build(small(terms=(GradientPenalty(strength=strength),)))
        watch = Watch(gan)
        torch.manual_seed(1)
        d_step(gan, batch(), nimg)
        found.append(watch.gradients[0]["D"])
    scheduled, constant, without = found
    for name, gradient in scheduled.items():
        assert torch.equal(gradient, constant[name]), name
    assert any(not torch.equal(gradient, without[name]) for name, gradient in scheduled.items())


def test_every_update_of_each_player_has_noise_of_its_own():
    """Wrong: noise that does not follow the images seen, or is D's in G's update."""
    gan, real = build(small()), batch()
    watch = Watch(gan)
    for nimg in (0, 8, 0):
        d_step(gan, real, nimg)
        g_step(gan, real, nimg)
    first_d, first_g, second_d, second_g, again_d, again_g = watch.z
    assert torch.equal(first_d, again_d)
    assert torch.equal(first_g, again_g)
    different = [first_d, first_g, second_d, second_g]
    for i, one in enumerate(different):
        for other in different[:i]:
            assert not (one == other).any()


@loop_over("classes", [Auxiliary(), SemiSupervised(labelled=20)], ids=["auxiliary", "semi-supervised"])
def test_matching_in_place_of_the_adversarial_loss_leaves_the_loss_of_classes(classes):
    """Wrong: a term that replaces G's adversarial loss takes every loss of G away."""
    cfg = small(head=Head(classes), terms=(FeatureMatching(adversarial=False),))
    gan, real = build(cfg), batch()
    watch, reference = Watch(gan), Reference(gan)
    g_step(gan, real, 0, real)
    on_real, on_fake = (reference.logits(x) for x in (real.x, reference.images(watch.z[0], real.y)))
    total = (on_real.features.mean(0) - on_fake.features.mean(0)).square().sum()
    if isinstance(classes, Auxiliary):  # of the other, D alone learns classes
        total = total + cross_entropy(on_fake.classes, real.y)
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")


def test_of_generated_images_the_classes_are_those_they_are_shown_with():
    """Wrong: the labels of the real images of the batch, which are others where a pool shows old ones."""
    scores, y, other = torch.randn(5, 10), torch.arange(5), torch.arange(5) + 5
    seen = SimpleNamespace(
        on_fake=Logits(scores[:, :1], classes=scores), fake=Batch(scores, other), real=Batch(scores, y)
    )
    assert ClassLoss("fake", "both").of(seen).item() == pytest.approx(cross_entropy(scores, other).item(), rel=1e-6)


def test_ds_direction_loss_is_normalised_if_the_head_says_so():
    """Divided by the mean weight -g' of each side (Takida et al. 2024). Wrong: the setting is read and not used."""
    gradients = []
    for normalize in (False, True):
        gan, real = build(small(head=Head(san=True, normalize_loss=normalize))), batch()
        watch, reference = Watch(gan), Reference(gan)
        d_step(gan, real, 0)
        on_real, on_fake = (reference.logits(x) for x in (real.x, reference.images(watch.z[0]).detach()))
        total = F.softplus(-on_real.fun).mean() + F.softplus(on_fake.fun).mean()
        for sign, dir_ in ((1, on_real.dir), (-1, on_fake.dir)):
            weight = torch.sigmoid(-dir_.detach()).mean() if normalize else 1.0  # -g' of g(t) = log(1 + exp(-t))
            total = total + sign * F.softplus(-dir_).mean() / weight
        assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
        gradients.append(watch.gradients[0]["D"])
    assert any(not torch.allclose(gradients[0][name], gradients[1][name], rtol=0.05) for name in gradients[0])


def test_terms_of_one_kind_are_reported_as_their_sum():
    """Wrong: the last one hides the others."""
    found = []
    flat, steep = (GradientPenalty(target=target, strength=0.0) for target in (0.0, 5.0))
    for terms in ((flat,), (steep,), (flat, steep)):
        torch.manual_seed(1)
        gan, real = build(small(terms=terms)), batch()
        gan.critic = partial(linear, gan.critic)
        found.append(d_step(gan, real, 0)["D/GradientPenalty"].item())
    assert found[2] == pytest.approx(found[0] + found[1], rel=1e-6)
    assert min(found) > 1


def linear(critic, x, y):
    """A critic that has the same slope everywhere, so that no draw of a penalty matters, and reads D's weights."""
    return 3 * x.flatten(1).sum(1, keepdim=True) / x[0].numel() ** 0.5 + 0 * critic(x, y)


def test_g_may_have_more_images_than_ds_labelled_ones_in_every_piece():
    """Wrong: labelled images that are not repeated with G's batch, and then do not make as many pieces."""
    cfg = small(head=Head(SemiSupervised(labelled=20)), g_batches=2, compute=Compute(micro_batch=1))
    gan, real = build(cfg), batch()
    whole = build(replace(cfg, compute=Compute()))
    stats = [g_step(each, real, 0, batch())["G/loss"].item() for each in (gan, whole)]
    assert stats[0] == pytest.approx(stats[1], rel=1e-5)


# ---- what the players are built with -----------------------------------------------------------------------


def test_each_player_has_its_own_optimiser_and_normaliser():
    """Wrong: one player with what the other one's setting says."""
    cfg = small(
        g_optim=Adam(lr=1e-3, betas=(0.5, 0.9)),
        d_optim=RMSprop(lr=2e-3),
        g_normalizer=WeightNorm(),
        d_normalizer=NoNormalizer(),
    )
    gan = build(cfg)
    assert isinstance(gan.g_optim, torch.optim.Adam)
    assert isinstance(gan.d_optim, torch.optim.RMSprop)
    assert [optim.param_groups[0]["lr"] for optim in (gan.g_optim, gan.d_optim)] == [1e-3, 2e-3]
    for net, optim in ((gan.G, gan.g_optim), (gan.D, gan.d_optim)):
        assert {id(p) for p in optim.param_groups[0]["params"]} == {id(p) for p in net.parameters()}
    assert any(parametrize.is_parametrized(module) for module in gan.G.modules())
    assert not any(parametrize.is_parametrized(module) for module in gan.D.modules())


def test_initial_weights_are_a_function_of_the_seed():
    """Whatever torch's generator has drawn before. Wrong: the same networks for every seed."""
    found = []
    for seed in (3, 4, 3):
        torch.rand(seed)
        gan = GAN.build(small(seed=seed), SPEC)
        found.append([*gan.G.state_dict().values(), *gan.D.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True) if a.std() > 0)


def test_an_augmentation_follows_the_images_seen():
    """Wrong: it stays where its schedule begins."""
    gan = build(small(augment=InstanceNoise(std=Linear(start=1.0, end=0.0, kimg=0.1))))
    x = torch.zeros(400, 1, 28, 28)
    for nimg, std in ((0, 1.0), (50, 0.5), (75, 0.25), (100, 0.0), (25, 0.75)):
        gan.at(nimg)
        assert gan.augment(x).std().item() == pytest.approx(std, rel=0.01)


def test_the_average_counts_the_images_of_all_updates_of_d(tmp_path, monkeypatch):
    """Wrong: those of the last one alone, which makes the half-life longer by the number of updates."""
    counted = []
    update = EMA.update
    monkeypatch.setattr(EMA, "update", lambda *args: (counted.append(args[2:]), update(*args)))
    train(small(d_steps=3, total_kimg=0.072), tmp_path)
    assert counted == [(24, 24), (48, 24), (72, 24)]
