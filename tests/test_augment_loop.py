"""Augmentation in the trainer: settings that say nothing are refused, images held out, runs that resume exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs import lines
from tiny import recipe

from equipoise.augment import ADA, Chain, DiffAugment, InstanceNoise
from equipoise.config import override
from equipoise.data import Digits, hold_out
from equipoise.losses import LeastSquares, RelativisticPairing, SoftLeastSquares, Wasserstein
from equipoise.penalties import R1
from equipoise.schedules import Linear
from equipoise.train import train

RISING = ADA(kimg=0.2, target=-0.9)
AUGMENTS = {
    "rt": RISING,
    "rv": ADA(kimg=0.2, heuristic="rv", held_out=0.1),
    "DiffAugment": DiffAugment(),
    "InstanceNoise": InstanceNoise(std=Linear(start=0.2, end=0.0, kimg=0.1)),
    "Chain": Chain((RISING, InstanceNoise())),
}


@pytest.mark.parametrize("name", AUGMENTS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, tmp_path):
    """With R1 through the augmentation, and several D updates per G update."""
    cfg = override(recipe(), {"augment": AUGMENTS[name], "penalties": (R1(every=2),), "d_steps": 2})
    whole = train(cfg, tmp_path / "whole").state_dict()
    train(override(cfg, {"total_kimg": 0.08}), tmp_path / "cut")
    resumed = train(cfg, tmp_path / "cut").state_dict()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    last = lines(tmp_path / "whole")[-1]
    assert ("augment/p" in last) == (name in ("rt", "rv", "Chain"))
    assert ("D/held_out" in last) == (name == "rv")


def test_p_is_logged_and_rises_at_the_promised_pace(tmp_path):
    """A step of 32 images is 0.16 of 0.2 kimg; a line holds the mean of its updates."""
    train(override(recipe(), {"augment": RISING}), tmp_path)
    ps = [line["augment/p"] for line in lines(tmp_path)]
    assert ps == sorted(ps)
    assert ps[-1] == pytest.approx((3 * 0.64 + 0.80) / 4, abs=1e-5)  # the last of four updates moves p


@pytest.mark.parametrize("loss", [Wasserstein, LeastSquares, SoftLeastSquares, RelativisticPairing])
@pytest.mark.parametrize("augment", [ADA(), Chain((DiffAugment(), ADA()))], ids=["ADA", "Chain"])
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


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_a_share_that_leaves_nothing_is_refused(share):
    with pytest.raises(ValueError, match="leaves no image"):
        hold_out(Digits().build(), share)
