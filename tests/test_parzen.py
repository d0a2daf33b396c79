"""Parzen windows: against scipy's kernel density estimate and sums of densities, and the choice of a bandwidth."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy.integrate import trapezoid
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, multivariate_normal, norm

from equipoise.metrics import parzen_bandwidth, parzen_log_likelihood


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def reference(samples, data, bandwidth):
    """Sums of exponentials of distances that are found coordinate by coordinate."""
    s, features = np.asarray(samples, float), np.shape(samples)[1]
    exponents = -cdist(np.asarray(data, float), s, "sqeuclidean") / (2 * bandwidth**2)
    return logsumexp(exponents, axis=1) - np.log(len(s)) - features / 2 * np.log(2 * np.pi * bandwidth**2)


# ---- the log-likelihood ----------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 2, 6])
@pytest.mark.parametrize("bandwidth", [0.1, 0.7, 3.0])
def test_is_scipys_kernel_density_estimate(rng, features, bandwidth):
    """Whose kernel has the samples' covariance, so they get the covariance 1."""
    x = rng.normal(size=(80, features))
    samples = np.linalg.qr(x - x.mean(0))[0] * math.sqrt(79) + 3
    data = rng.normal(size=(50, features)) + 3
    expected = gaussian_kde(samples.T, bw_method=bandwidth).logpdf(data.T)
    np.testing.assert_allclose(parzen_log_likelihood(samples, data, bandwidth=bandwidth), expected, rtol=1e-10)


@pytest.mark.parametrize(("count", "points"), [(1, 1), (500, 500), (501, 3), (3, 501), (1203, 1100)])
def test_is_the_sum_of_densities_whatever_the_numbers(rng, count, points):
    """More than are held at a time, too."""
    samples, data = rng.random((count, 5)), rng.random((points, 5))
    found = parzen_log_likelihood(samples, data, bandwidth=0.15)
    assert found.shape == (points,)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, reference(samples, data, 0.15), rtol=1e-11, atol=1e-11)


def test_images(rng):
    samples, data = rng.random((300, 784)), rng.random((200, 784))
    for bandwidth in (0.05, 0.2, 1.0):
        expected = reference(samples, data, bandwidth)
        np.testing.assert_allclose(parzen_log_likelihood(samples, data, bandwidth=bandwidth), expected, rtol=1e-11)


def test_of_one_sample_is_the_density_of_a_gaussian(rng):
    data = rng.normal(size=(20, 3))
    expected = multivariate_normal(mean=[1, 2, 3], cov=0.25 * np.eye(3)).logpdf(data)
    np.testing.assert_allclose(parzen_log_likelihood([[1, 2, 3]], data, bandwidth=0.5), expected, rtol=1e-12)


def test_the_densities_integrate_to_1(rng):
    samples, x = rng.normal(size=(30, 1)), np.linspace(-8, 8, 4001)
    density = np.exp(parzen_log_likelihood(samples, x[:, None], bandwidth=0.3))
    assert trapezoid(density, x) == pytest.approx(1, abs=1e-9)


def test_points_far_from_all_samples_stay_finite(rng):
    """Where a sum of densities is 0, the nearest sample decides."""
    samples = np.array([[0.0, 0.0], [1.0, 0.0]])
    found = parzen_log_likelihood(samples, [[1000.0, 0.0]], bandwidth=0.1)
    assert found == pytest.approx(2 * norm.logpdf(0, scale=0.1) - math.log(2) - 999**2 / 0.02, rel=1e-12)


def test_samples_far_from_0_lose_no_digits(rng):
    samples, data = rng.random((60, 40)), rng.random((50, 40))
    far = parzen_log_likelihood(samples + 2**20, data + 2**20, bandwidth=0.1)
    np.testing.assert_allclose(far, parzen_log_likelihood(samples, data, bandwidth=0.1), atol=1e-5)
    same = parzen_log_likelihood(samples, samples, bandwidth=1e-4)  # distances 0, where rounding may leave less
    np.testing.assert_allclose(same, 40 * norm.logpdf(0, scale=1e-4) - math.log(60), atol=1e-4)


def test_other_units_move_it_by_their_logarithm_for_each_number(rng):
    samples, data = rng.random((60, 7)), rng.random((50, 7))
    bytes_ = parzen_log_likelihood(255 * samples, 255 * data, bandwidth=255 * 0.2)
    np.testing.assert_allclose(bytes_, parzen_log_likelihood(samples, data, bandwidth=0.2) - 7 * math.log(255))


def test_shares_of_the_data_are_the_whole(rng):
    samples, data = rng.random((200, 9)), rng.random((700, 9))
    whole = parzen_log_likelihood(samples, data, bandwidth=0.2)
    parts = [parzen_log_likelihood(samples, part, bandwidth=0.2) for part in np.array_split(data, 7)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-10)


def test_tensors_of_any_kind_and_lists_are_welcome(rng):
    samples, data = rng.random((30, 4)).astype(np.float32), rng.integers(0, 2, size=(20, 4), dtype=np.uint8)
    expected = reference(samples, data, 0.05)
    tensors = torch.tensor(samples, requires_grad=True), torch.tensor(data)
    for pair in ((samples, data), tensors, (samples.tolist(), data.tolist())):
        np.testing.assert_allclose(parzen_log_likelihood(*pair, bandwidth=0.05), expected, rtol=1e-12)


# ---- the bandwidth ---------------------------------------------------------------------------------------

GRID = np.geomspace(0.05, 5, 41)


def test_of_one_sample_the_best_is_the_spread_of_the_validation_points(rng):
    """σ² = 1/FN Σ ‖x - s‖²."""
    validation = 0.6 * rng.normal(size=(100, 3)) + 2
    best = math.sqrt(np.square(validation - 2).mean())
    chosen = parzen_bandwidth([[2, 2, 2]], validation, GRID)
    assert chosen == GRID[np.abs(np.log(GRID / best)).argmin()]
    assert isinstance(chosen, float)


def test_is_the_candidate_with_the_highest_mean(rng):
    samples, validation = rng.normal(size=(700, 4)), rng.normal(size=(600, 4))
    means = [reference(samples, validation, sigma).mean() for sigma in GRID]
    best = GRID[np.argmax(means)]
    assert GRID[0] < best < GRID[-1]
    for candidates in (GRID, rng.permutation(GRID), [*GRID, *GRID], torch.tensor(GRID), iter(GRID)):
        assert parzen_bandwidth(samples, validation, candidates) == best


def test_warns_where_a_better_one_may_lie_beyond(rng):
    samples, validation = rng.normal(size=(50, 2)), rng.normal(size=(50, 2))
    with pytest.warns(UserWarning, match=r"best bandwidth, 3, is the smallest of the candidates: .* as far as 0\.3"):
        assert parzen_bandwidth(samples, validation, [5, 3, 4]) == 3
    with pytest.warns(UserWarning, match=r"best bandwidth, 0\.02, is the largest of the candidates: .* as far as 0\.2"):
        assert parzen_bandwidth(samples, validation, [0.01, 0.02]) == 0.02
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parzen_bandwidth(samples, validation, [3]) == 3  # no choice


# ---- what is given ---------------------------------------------------------------------------------------


@loop_over("bandwidth", [0, -0.1, math.nan, math.inf])
def test_what_is_no_bandwidth_is_refused(bandwidth):
    x = np.eye(3)
    with pytest.raises(ValueError, match=rf"standard deviation, finite and above 0; got {bandwidth:g}"):
        parzen_log_likelihood(x, x, bandwidth=bandwidth)
    with pytest.raises(ValueError, match="above 0"):
        parzen_bandwidth(x, x, [0.1, bandwidth])


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match=r"no candidates to choose a bandwidth from: give some"):
        parzen_bandwidth(np.eye(3), np.eye(3), [])


@loop_over(
    ("x", "message"),
    [
        (np.zeros(3), r"expected {} as points of shape \(N, F\).*got shape \(3,\); images are flattened by"),
        (np.zeros((5, 1, 1, 3)), r"expected {} as points.*got shape \(5, 1, 1, 3\)"),
        (np.zeros((0, 3)), r"expected {} as points.*got shape \(0, 3\)"),
        (np.zeros((3, 0)), r"expected {} as points.*got shape \(3, 0\)"),
        (np.array([[0.0, 1, 2], [np.nan, 0, np.inf]]), "1 of 2 points of {} hold NaN or Inf, the first is point 1"),
    ],
)
def test_what_are_no_points_is_refused(x, message):
    y = np.eye(3)
    for call, given in (
        (lambda: parzen_log_likelihood(x, y, bandwidth=1), "samples"),
        (lambda: parzen_log_likelihood(y, x, bandwidth=1), "data"),
        (lambda: parzen_bandwidth(x, y, GRID), "samples"),
        (lambda: parzen_bandwidth(y, x, GRID), "validation"),
    ):
        with pytest.raises(ValueError, match=message.replace("{}", given)):
            call()


def test_points_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"samples have 3 numbers per point and the data 4: give both as images of"):
        parzen_log_likelihood(np.eye(3), np.eye(4), bandwidth=1)
