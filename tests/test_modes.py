"""Counting modes, and stacked digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from equipoise.data import Digits, StackedDigits
from equipoise.metrics import count_modes, digits_judge, stacked_modes


def test_counts_and_kl():
    assert count_modes([3], 5) == (1, pytest.approx(math.log(5)))
    assert count_modes(np.arange(1000), 1000) == (1000, pytest.approx(0, abs=1e-12))
    found = count_modes(torch.tensor([0, 0, 0, 1]), 2)
    assert found == (2, pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5)))


def test_even_data_have_about_the_promised_kl():
    rng = np.random.default_rng(0)
    found = np.mean([count_modes(rng.integers(100, size=5000), 100).kl for _ in range(50)])
    assert found == pytest.approx(99 / 10_000, rel=0.05)


def test_bad_ids():
    with pytest.raises(ValueError, match="there are modes 0 to 9, but the ids reach from 2 to 10"):
        count_modes([2, 10], 10)
    with pytest.raises(ValueError, match="at least one mode id, as integers"):
        count_modes([0.5], 10)


def test_stacks_are_digits_of_one_size_in_three_channels():
    digits, stacked = Digits().build(), StackedDigits(num=300).build()
    assert (stacked.spec.channels, stacked.spec.resolution, stacked.spec.num_classes) == (3, 28, 0)
    assert len(stacked) == 300
    chosen = np.array([5, 299, 5])
    images = stacked.read(chosen)
    for image, parts in zip(images, stacked.parts[chosen], strict=True):
        np.testing.assert_array_equal(image, digits.read(parts)[:, 0])
    np.testing.assert_array_equal(StackedDigits(num=300).build().read(chosen), images)


def test_the_judge_reads_the_mode_off_a_stack():
    digits, stacked = Digits().build(), StackedDigits(num=400).build()
    images = stacked.read(np.arange(400)).transpose(0, 2, 3, 1)
    truth = digits.labels[stacked.parts] @ [100, 10, 1]
    assert (stacked_modes(digits_judge(), images) == truth).mean() > 0.93
    assert len(set(truth)) > 250  # of 1,000 modes, 400 stacks
    with pytest.raises(ValueError, match="images of three channels"):
        stacked_modes(digits_judge(), images[..., :1])


def test_stacks_of_colour_images_are_refused():
    with pytest.raises(ValueError, match="stacks are made of grey images, and these have 3 channels"):
        StackedDigits(of=StackedDigits(num=10), num=10).build()
