"""Augmentation in the trainer: settings that say nothing are refused, images held out, runs that resume exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import loop_over
from reference import Watch, batch, build, small
from runs import assert_resumes, lines
from tiny import recipe

from equipoise.augment import ADA, Chain, DiffAugment, InstanceNoise
from equipoise.compute.settings import Compute
from equipoise.config import override
from equipoise.core.randomness import Purpose
from equipoise.core.schedules import Linear
from equipoise.core.types import Batch
from equipoise.data import Digits, hold_out
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    Dragan,
    Drift,
    FeatureMatching,
    GradientPenalty,
    LeastSquares,
    RelativisticPairing,
    SoftLeastSquares,
    Wasserstein,
)
from equipoise.models import Head, SemiSupervised
from equipoise.train import d_step, g_step, train

RISING = ADA(kimg=0.2, target=-0.9)
AUGMENTS = {
    "rt": RISING,
    "rv": ADA(kimg=0.2, heuristic="rv", held_out=0.1),
    "DiffAugment": DiffAugment(),
    "InstanceNoise": InstanceNoise(std=Linear(start=0.2, end=0.0, kimg=0.1)),
    "Chain": Chain((RISING, InstanceNoise())),
}


@pytest.mark.parametrize("name", ["rt", "rv", "Chain"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, tmp_path):
    """With R1 through the augmentation, and several D updates per G update."""
    assert_resumes(override(recipe(), {"augment": AUGMENTS[name], "terms": (R1(every=2),), "d_steps": 2}), tmp_path)
    last = lines(tmp_path / "whole")[-1]
    assert "augment/p" in last
    assert ("D/held_out" in last) == (name == "rv")


def test_p_is_logged_and_rises_at_the_promised_pace(tmp_path):
    """A step of 32 images is 0.16 of 0.2 kimg; a line holds the mean of its updates."""
    train(override(recipe(), {"augment": RISING}), tmp_path)
    ps = [line["augment/p"] for line in lines(tmp_path)]
    assert ps == sorted(ps)
    assert ps[-1] == pytest.approx((3 * 0.64 + 0.80) / 4, abs=1e-5)  # the last of four updates moves p


@loop_over("loss", [Wasserstein, LeastSquares, SoftLeastSquares, RelativisticPairing])
@loop_over("augment", [ADA(), Chain((DiffAugment(), ADA()))], ids=["ADA", "Chain"])
def test_rt_is_refused_with_losses_whose_sign_says_nothing(loss, augment):
    changes = {"loss": loss(), "head.san": False}
    with pytest.raises(ValueError, match=r"a logit of 0 does not mean undecided there. Compare with images held out"):
        override(recipe(), changes | {"augment": augment})
    for other in (ADA(heuristic="rv", held_out=0.1), ADA(heuristic="fixed", initial=0.3), DiffAugment()):
        override(recipe(), changes | {"augment": other})


def test_held_out_images_are_of_the_data_and_not_trained_on():
    digits = Digits().build()
    assert hold_out(digits, 0.0) == (digits, None)
    training, held_out = hold_out(digits, 0.1)
    assert len(held_out) == round(0.1 * len(digits))
    assert len(training) + len(held_out) == len(digits)
    both = np.concatenate([training.indices, held_out.indices])
    assert np.array_equal(np.sort(both), np.arange(len(digits)))
    some = np.array([5, 0, 7])
    assert np.array_equal(held_out.read(some), digits.read(held_out.indices[some]))
    assert np.array_equal(held_out.labels, digits.labels[held_out.indices])
    assert held_out.spec == training.spec == digits.spec
    assert np.array_equal(hold_out(digits, 0.1)[1].indices, held_out.indices)


@loop_over("share", [1e-9, 1 - 1e-9])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match="leaves no image"):
        hold_out(Digits().build(), share)


# ---- D sees no image as it is -------------------------------------------------------------------------------


class Passed:
    """The images that an augmentation was given and returned, and those that reached D's layers."""

    def __init__(self, gan):
        self.given, self.returned, self.seen = [], [], []
        gan.augment.register_forward_hook(self.note)
        gan.D.body.register_forward_pre_hook(lambda module, args: self.seen.append(args[0]))

    def note(self, module, args, output):
        self.given.append(args[0])
        self.returned.append(output)

    def differentiated(self):
        """How many of them a penalty differentiates by, as they were before the augmentation."""
        return sum(x.is_leaf and x.requires_grad for x in self.given)


PENALTIES = (R1(every=1), R2(every=1), GradientPenalty(), Dragan(), Drift())
STEPS = {  # changes, images that D sees in its own update and in G's
    "penalties": ({"terms": PENALTIES}, 2 + 1 + 5, 1),
    "labelled": ({"head": Head(SemiSupervised())}, 2 + 1 + 1, 1),
    "joint": ({"terms": (Consensus(),)}, 2 + 1 + 3, 1 + 3),
    "pairs": ({"loss": RelativisticPairing(), "terms": (Consensus(),)}, 2 + 1 + 4, 2 + 4),
    "features": ({"terms": (FeatureMatching(),)}, 2 + 1, 2),
    "kept": ({"game.reuse": True}, 2 + 1, 1),
    "pieces": ({"compute": Compute(micro_batch=4), "terms": (R1(every=1),)}, 2 * (2 + 1 + 1), 2),
}


@loop_over("name", STEPS)
def test_every_image_that_d_sees_in_a_step_has_passed_the_augmentation(name):
    """Each is one that the augmentation returned, and none is returned twice."""
    changes, in_d_step, in_g_step = STEPS[name]
    gan = build(small(augment=InstanceNoise(std=0.1), **changes))
    real, held_out, labelled = batch(), batch(), batch()
    for step, others, images in ((d_step, (held_out, labelled), in_d_step), (g_step, (labelled,), in_g_step)):
        passed = Passed(gan)
        step(gan, real, 0, *others)
        assert len(passed.seen) == images
        assert all(x is y for x, y in zip(passed.seen, passed.returned, strict=True))
        assert not any(torch.equal(x, y) for x, y in zip(passed.given, passed.returned, strict=True))
        if step is d_step and "compute" not in changes:
            sources = [real.x, held_out.x, *([labelled.x] if name == "labelled" else [])]
            assert all(any(x is source for x in passed.given) for source in sources)
            assert passed.differentiated() == (4 if name == "penalties" else 0)


@loop_over("penalty", [R1(gamma=2.0, every=1), R2(gamma=2.0, every=1)], ids=["R1", "R2"])
def test_a_penalty_is_that_of_the_augmented_critic(penalty):
    """D's gradient with it, less that without, is the gradient of ‖∇ D(x + noise)‖², with the noise of its own draw."""
    std, real, steps = 0.5, batch(), []
    for penalties in ((), (penalty,)):
        gan = build(small(augment=InstanceNoise(std=std), terms=penalties))
        x = (real if isinstance(penalty, R1) else gan.generate(real, Purpose.Z_FOR_D, 0)).x.requires_grad_(True)
        weights = {n: p.detach().clone().requires_grad_(True) for n, p in gan.D.named_parameters()}
        watch = Watch(gan)
        torch.manual_seed(7)
        d_step(gan, Batch(real.x.detach(), real.y), 0)
        steps.append(watch.gradients[0]["D"])
    torch.manual_seed(7)
    noise = [torch.randn_like(x) for _ in range(3)][-1]  # the loss drew twice

    def slopes(strength):
        """Of mean ‖∇ D(x + strength · noise)‖² by D's weights."""
        logits = torch.func.functional_call(gan.D, weights, (x + strength * noise, real.y)).fun
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        value = slope.square().flatten(1).sum(1).mean()
        parts = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
        return {name: part.double() for name, part in zip(weights, parts, strict=True)}

    found, expected, plain = {n: g - steps[0][n] for n, g in steps[1].items()}, slopes(std), slopes(0.0)
    largest = max(g.abs().max() for g in expected.values())
    for name in found:
        assert (found[name] - expected[name]).abs().max() < 1e-5 * largest
    assert max((plain[n] - expected[n]).abs().max() for n in plain) > 0.01 * largest  # so the two are told apart
