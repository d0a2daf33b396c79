"""The Inception Score: of known probabilities, against scipy's relative entropy, and its splits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy.stats import entropy

from equipoise.metrics import effective_classes, inception_score


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def reference(p):
    q = p.mean(0)
    return np.exp(np.mean([entropy(row, q) for row in p]))  # of two arguments it is KL


@loop_over("classes", [1, 2, 10, 200])
def test_is_the_number_of_classes_for_sure_and_evenly_spread_images(classes):
    p = np.tile(np.eye(classes), (10, 1))
    assert inception_score(p) == pytest.approx((classes, 0), rel=1e-12, abs=1e-12)


@loop_over("row", [[1.0, 0.0, 0.0], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]])
def test_is_1_where_all_images_get_the_same_answer(row):
    assert inception_score(np.tile(row, (50, 1))) == pytest.approx((1, 0), abs=1e-12)


def test_of_sure_images_is_the_effective_number_of_classes():
    p = np.eye(3)[[0, 0, 0, 1, 1, 2]]
    score, std = inception_score(p, splits=1)
    assert score == pytest.approx(2 ** (1 / 2) * 3 ** (1 / 3) * 6 ** (1 / 6), rel=1e-12)
    assert score == pytest.approx(effective_classes(p), rel=1e-12)
    assert std == 0


def test_two_classes_have_a_closed_form():
    """Half of the images (a, 1 - a), half (1 - a, a): 2 aᵃ (1 - a)¹⁻ᵃ."""
    a = 0.9
    score, _ = inception_score([[a, 1 - a], [1 - a, a]], splits=1)
    assert score == pytest.approx(2 * a**a * (1 - a) ** (1 - a), rel=1e-12)


@pytest.mark.parametrize(("images", "splits"), [(40, 1), (40, 4), (43, 4), (7, 3), (5, 5)])
def test_is_the_mean_over_equal_parts_in_order_and_their_standard_deviation(rng, images, splits):
    p = rng.dirichlet(np.full(6, 0.3), size=images)
    ends = [i * images // splits for i in range(splits + 1)]
    scores = [reference(p[a:b]) for a, b in pairwise(ends)]
    mean = sum(scores) / splits
    std = (sum((score - mean) ** 2 for score in scores) / splits) ** 0.5
    assert inception_score(p, splits) == pytest.approx((mean, std), rel=1e-10, abs=1e-10)


def test_there_are_ten_splits_unless_told_otherwise(rng):
    p = rng.dirichlet(np.ones(4), size=95)
    assert inception_score(p) == inception_score(p, splits=10) != inception_score(p, splits=9)


def test_rows_sorted_by_class_score_1_and_shuffled_ones_do_not(rng):
    p = np.eye(10)[np.repeat(np.arange(10), 100)]
    assert inception_score(p)[0] == pytest.approx(1, abs=1e-12)
    assert 9 < inception_score(rng.permutation(p))[0] < 10


def test_lies_between_1_and_the_number_of_classes(rng):
    for concentration in (0.01, 0.3, 1, 100):
        score, _ = inception_score(rng.dirichlet(np.full(8, concentration), size=200))
        assert 1 < score < 8


def test_tensors_of_any_kind_and_lists_are_welcome(rng):
    p = rng.dirichlet(np.ones(5), size=40).astype(np.float32)
    expected = inception_score(p.astype(np.float64))
    for given in (p, torch.tensor(p, requires_grad=True), p.tolist()):
        found = inception_score(given)
        assert [type(value) for value in found] == [float, float]
        assert found == pytest.approx(expected, rel=1e-12)


@loop_over(
    ("p", "splits", "message"),
    [
        (np.eye(3), 10, "3 images are too few for 10 splits: give more images or fewer splits"),
        (np.eye(3), 0, "expected at least 1 split, got 0"),
        (np.eye(3), -2, "got -2"),
        (np.full(10, 0.1), 1, r"shape \(N, K\).*got shape \(10,\)"),
        (np.array([[0.5, 0.5], [np.nan, 1]]), 1, "1 of 2 rows of p hold NaN or Inf, the first is row 1"),
        (np.array([[3.0, 4.0]]), 1, r"sum to 1.*logits\.softmax\(1\)"),
    ],
)
def test_what_has_no_score_is_refused(p, splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(p, splits)
