"""The kernel distance and the sliced Wasserstein distance: against loops, closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from loops import loop_over
from scipy.stats import wasserstein_distance

from equipoise.metrics import kernel_distance, mmd2, sliced_wasserstein


def normal(n, features=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features))


# ---- kernel distance -------------------------------------------------------------------------------------


def test_against_a_pair_at_a_time():
    x, y = normal(7), normal(5, seed=1) + 1

    def k(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 4 + 1) ** 3

    of_x = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    of_y = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert mmd2(x, y) == pytest.approx(of_x + of_y - 2 * across, rel=1e-12)


def test_it_has_no_bias():
    """Over many pairs of samples of one distribution the mean is 0, however few samples there are."""
    found = [mmd2(normal(8, seed=s), normal(8, seed=10_000 + s)) for s in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    assert np.mean(np.array(found) < 0) > 0.3


def test_on_a_line_it_is_the_difference_of_three_moments():
    """k(a, b) = Σ_m C(3, m) a^m b^m, so the distance of distributions is Σ_m C(3, m) (E x^m - E y^m)²."""
    x, y = np.repeat([[1.0], [3.0]], 1000, axis=0), np.full((2000, 1), 2.0)
    assert mmd2(x, y) == pytest.approx(3 * (2 - 2) ** 2 + 3 * (5 - 4) ** 2 + (14 - 8) ** 2, rel=0.01)


def test_subsets():
    x, y = normal(300), normal(400, seed=1) + 0.5
    whole = kernel_distance(x, y[:300], subsets=2, subset_size=300)
    assert whole == (pytest.approx(mmd2(x, y[:300])), pytest.approx(0, abs=1e-12))
    found = kernel_distance(x, y, subsets=200, subset_size=50)
    assert found.mean == pytest.approx(mmd2(x, y), abs=5 * found.std / np.sqrt(200))
    assert found == kernel_distance(x, y, subsets=200, subset_size=50)
    assert found != kernel_distance(x, y, subsets=200, subset_size=50, seed=1)


def test_bad_subsets():
    with pytest.raises(ValueError, match=r"subset_size=1000 must be .* there are 5 real and 6 generated ones"):
        kernel_distance(normal(5), normal(6))
    with pytest.raises(ValueError, match="at least one subset, got subsets=0"):
        kernel_distance(normal(5), normal(6), subsets=0, subset_size=2)
    with pytest.raises(ValueError, match="expected at least 2 samples of each, got 1 and 6"):
        mmd2(normal(1), normal(6))
    with pytest.raises(ValueError, match="the two sets have 4 and 3 features"):
        mmd2(normal(5), normal(6, 3))


# ---- sliced Wasserstein distance -------------------------------------------------------------------------


@loop_over(("n", "m"), [(40, 40), (40, 25), (7, 30)])
def test_on_a_line_it_is_that_of_scipy(n, m):
    x, y = normal(n, 1), normal(m, 1, seed=1) * 2
    assert sliced_wasserstein(x, y, p=1, projections=3) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]))


def test_a_shift():
    x = normal(50, 5)
    v = np.array([3.0, 0, 0, 4.0, 0])
    assert sliced_wasserstein(x, x + v, projections=4000) == pytest.approx(5 / np.sqrt(5), rel=0.03)
    assert sliced_wasserstein(x, x) == 0


def test_the_power_is_inside_the_mean_over_directions():
    x = normal(60, 3)
    v = np.array([1.0, 0, 0])
    mean_of_squares = sliced_wasserstein(x, x + v, p=2, projections=4000, seed=1) ** 2
    mean = sliced_wasserstein(x, x + v, p=1, projections=4000, seed=1)
    assert mean_of_squares == pytest.approx(1 / 3, rel=0.05)  # E ω_1²
    assert mean == pytest.approx(1 / 2, rel=0.05)  # E |ω_1|


def test_copies_change_nothing():
    x, y = normal(12), normal(9, seed=1)
    found = sliced_wasserstein(x, y, projections=20)
    assert sliced_wasserstein(np.repeat(x, 3, axis=0), np.repeat(y, 2, axis=0), projections=20) == pytest.approx(found)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"p of at least 1, got p=0\.5"):
        sliced_wasserstein(normal(5), normal(5), p=0.5)
    with pytest.raises(ValueError, match="at least one projection, got projections=0"):
        sliced_wasserstein(normal(5), normal(5), projections=0)
