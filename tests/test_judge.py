from __future__ import annotations

import math
import os
from importlib.resources import files

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy.stats import entropy

from equipoise.data import Digits
from equipoise.metrics import (
    DigitsJudge,
    class_agreement,
    class_probabilities,
    digits_judge,
    effective_classes,
    mean_top_probability,
)
from equipoise.metrics.judge import WEIGHTS

METRICS = [mean_top_probability, effective_classes, lambda p: class_agreement(p, np.zeros(len(p), int))]


@pytest.fixture(scope="module")
def judge() -> DigitsJudge:
    return digits_judge()


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All bundled digits, uint8 (N, H, W, C), and their classes."""
    data = Digits().build()
    return data.read(np.arange(len(data))).transpose(0, 2, 3, 1), data.labels


@pytest.fixture
def p() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(10, 0.3), size=50)


# ---- formulas --------------------------------------------------------------------------------------------


def test_values_by_hand():
    p = [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.1, 0.8, 0.1], [0.1, 0.4, 0.5]]  # q = (0.25, 0.4, 0.35)
    assert mean_top_probability(p) == pytest.approx((0.7 + 0.7 + 0.8 + 0.5) / 4, abs=1e-12)
    by_hand = 0.25**-0.25 * 0.4**-0.4 * 0.35**-0.35
    assert effective_classes(p) == pytest.approx(by_hand, abs=1e-12)
    assert class_agreement(p, [0, 0, 1, 2]) == 0.75


def test_effective_classes_is_the_exponential_of_scipys_entropy(p):
    assert effective_classes(p) == pytest.approx(math.exp(entropy(p.mean(0))), rel=1e-12)


def test_uniform_probabilities_are_all_classes_and_a_constant_class_is_one():
    uniform, constant = np.full((7, 10), 0.1), np.eye(10)[[3] * 7]
    assert effective_classes(uniform) == pytest.approx(10, rel=1e-12)
    assert mean_top_probability(uniform) == pytest.approx(0.1, rel=1e-12)
    assert effective_classes(constant) == 1
    assert mean_top_probability(constant) == 1


def test_each_class_once_is_sure_and_varied():
    assert effective_classes(np.eye(10)) == pytest.approx(10, rel=1e-12)  # the marginal, not each image's entropy
    assert mean_top_probability(np.eye(10)) == 1


@pytest.mark.parametrize("metric", METRICS)
def test_order_of_images_and_kind_of_array_do_not_matter(metric, p):
    p[:] = 0.5 * p + 0.5 * np.eye(10)[0]  # agreement must not depend on the order either
    shuffled = torch.tensor(np.random.default_rng(1).permutation(p), requires_grad=True)
    assert metric(shuffled) == pytest.approx(metric(p), rel=1e-12)
    assert metric(torch.tensor(p).float()) == pytest.approx(metric(p), rel=1e-6)
    assert isinstance(metric(shuffled), float)


def test_sums_run_in_float64():
    p = torch.tensor([[0.3, 0.7]]).expand(200_001, 2)  # a float32 running sum would drift
    assert mean_top_probability(p) == pytest.approx(float(p[0, 1]), rel=1e-12)


@loop_over("metric", METRICS)
@loop_over(
    ("bad", "message"),
    [
        (np.full(10, 0.1), r"shape \(N, K\).*got shape \(10,\)"),
        (np.zeros((0, 10)), r"at least 1, got shape \(0, 10\)"),
        (np.array([[0.5, 0.5], [np.nan, 1], [np.inf, 0]]), "2 of 3 rows of p hold NaN or Inf, the first is row 1"),
        (np.array([[2.0, -1.0]]), r"non-negative and sum to 1.*logits\.softmax\(1\)"),
        (np.array([[3.0, 4.0]]), r"sum to 1.*logits\.softmax\(1\)"),
    ],
)
def test_what_is_no_distribution_is_refused(metric, bad, message):
    with pytest.raises(ValueError, match=message):
        metric(bad)


@loop_over(
    ("y", "message"),
    [
        ([0, 1], r"as 3 integer class ids.*got int64 of shape \(2,\)"),
        ([[0], [1], [0]], r"got int64 of shape \(3, 1\)"),
        ([0.0, 1.0, 0.0], "got float64"),
        ([0, 1, 2], "classes 0 to 1, but y holds 0 to 2"),
        ([0, 1, -1], "classes 0 to 1, but y holds -1 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        class_agreement(np.full((3, 2), 0.5), np.array(y))


# ---- the judge -------------------------------------------------------------------------------------------


def test_weights_are_small():
    assert 100_000 < len((files("equipoise.metrics") / WEIGHTS).read_bytes()) < 400_000


def test_making_one_draws_nothing():
    before = torch.get_rng_state()
    judge = digits_judge()
    assert torch.equal(torch.get_rng_state(), before)
    assert {part.device.type for part in judge.state_dict().values()} == {"cpu"}


def test_shapes_and_the_last_layer(judge):
    x = torch.rand(5, 1, 28, 28) * 2 - 1
    h = judge.features(x)
    assert h.shape == (5, judge.head.in_features)
    assert judge(x).shape == (5, 10)
    torch.testing.assert_close(judge(x), judge.head(h))


def test_equal_images_get_equal_answers_in_any_company(judge, digits):
    x = digits[0][:300:10]
    whole = class_probabilities(judge, x)
    np.testing.assert_array_equal(whole, class_probabilities(digits_judge(), x))
    np.testing.assert_allclose(whole, class_probabilities(judge, x, batch_size=7), atol=1e-5)
    np.testing.assert_allclose(whole[::-1], class_probabilities(judge, x[::-1]), atol=1e-5)


def test_probabilities_are_the_softmax_of_the_logits_on_the_librarys_scale(judge, digits):
    x = digits[0][:20]
    inputs = torch.tensor(x).permute(0, 3, 1, 2) / 255 * 2 - 1
    logits = judge(inputs).numpy().astype(np.float64)
    e = np.exp(logits)
    p = class_probabilities(judge, x)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, e / e.sum(1, keepdims=True), atol=1e-5)


def test_a_judge_is_frozen_but_lets_gradients_reach_the_image():
    judge = digits_judge()
    assert not judge.training
    assert not any(w.requires_grad for w in judge.parameters())
    x = (torch.rand(2, 1, 28, 28) * 2 - 1).requires_grad_(True)
    judge(x)[0].logsumexp(0).backward()
    assert x.grad[0].abs().sum() > 0
    assert x.grad[1].abs().sum() == 0  # no statistics shared over the batch


@loop_over(
    ("images", "message"),
    [
        (np.zeros((2, 28, 28, 1), np.float32), r"uint8 \(N, H, W, C\).*got float32 of shape \(2, 28, 28, 1\)"),
        (np.zeros((2, 28, 28), np.uint8), r"got uint8 of shape \(2, 28, 28\)"),
        (np.zeros((0, 28, 28, 1), np.uint8), "at least one image"),
        (np.zeros((2, 30, 30, 1), np.uint8), r"grey 28x28 images.*got \(2, 1, 30, 30\)"),
        (np.zeros((2, 28, 28, 3), np.uint8), r"got \(2, 3, 28, 28\)"),
    ],
)
def test_images_of_another_kind_are_refused(judge, images, message):
    with pytest.raises(ValueError, match=message):
        class_probabilities(judge, images)


def test_knows_the_bundled_digits(judge, digits):
    x, y = digits
    p = class_probabilities(judge, x)
    assert class_agreement(p, y) > 0.985
    assert mean_top_probability(p) > 0.97
    assert 9.95 < effective_classes(p) <= 10


def test_is_unsure_of_what_is_no_digit(judge, digits):
    x, y = (part[::5] for part in digits)
    rng = np.random.default_rng(0)
    partner = rng.permutation(len(x))
    different = y != y[partner]
    blends = x[different] // 2 + x[partner][different] // 2
    noise = rng.integers(0, 256, x.shape, dtype=np.uint8)
    assert mean_top_probability(class_probabilities(judge, blends)) < 0.75
    assert mean_top_probability(class_probabilities(judge, noise)) < 0.3


@pytest.mark.skipif("EQUIPOISE_MNIST" not in os.environ, reason="EQUIPOISE_MNIST does not name an mnist.npz")
def test_knows_mnists_test_digits(judge):
    with np.load(os.environ["EQUIPOISE_MNIST"]) as mnist:
        x, y = mnist["x_test"][..., None], mnist["y_test"]
    p = class_probabilities(judge, x)
    agreement = class_agreement(p, y)
    assert agreement >= 0.985
    assert mean_top_probability(p) == pytest.approx(agreement, abs=0.01)  # calibrated
