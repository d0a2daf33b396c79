"""Precision and recall, density and coverage, nearest neighbours: against brute force and known configurations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy.spatial import cKDTree

from equipoise.metrics import density_coverage, distances, nearest_neighbours, precision_recall
from equipoise.metrics.neighbours import smallest


def normal(n, features=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features))


def in_balls(x, y, k):
    """[y_j lies in the ball of x_i], (N, M), a pair at a time."""
    inside = np.zeros((len(x), len(y)), dtype=bool)
    for i in range(len(x)):
        to_others = sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)
        for j in range(len(y)):
            inside[i, j] = np.linalg.norm(x[i] - y[j]) <= to_others[k - 1]
    return inside


@loop_over("k", [1, 3, 5])
def test_against_a_pair_at_a_time(k):
    x, y = normal(30), 0.7 * normal(23, seed=1) + 0.3
    of_real, of_fake = in_balls(x, y, k), in_balls(y, x, k)
    assert precision_recall(x, y, k=k) == pytest.approx((of_real.any(0).mean(), of_fake.any(0).mean()))
    assert density_coverage(x, y, k=k) == pytest.approx((of_real.sum() / (k * len(y)), of_real.any(1).mean()))


def test_known_configurations():
    x = normal(200)
    assert precision_recall(x, x) == (1, 1)
    assert density_coverage(x, x).coverage == 1
    far = x + 100
    assert precision_recall(x, far) == (0, 0)
    assert density_coverage(x, far) == (0, 0)
    one = np.repeat(x[:1], 50, axis=0)  # a generator with one image, a real one
    assert precision_recall(x, one).precision == 1
    assert precision_recall(x, one).recall == pytest.approx(1 / 200)


def test_two_samples_of_one_distribution_have_density_1_and_the_expected_coverage():
    x, y = normal(2000, 3), normal(2000, 3, seed=1)
    found = density_coverage(x, y)
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.02)


def test_half_the_modes_halve_recall_and_leave_precision():
    left, right = normal(300, 2), normal(300, 2, seed=1) + 50
    found = precision_recall(np.concatenate([left, right]), normal(300, 2, seed=2))
    assert found.precision > 0.9
    assert found.recall == pytest.approx(0.5, abs=0.05)


def test_an_outlier_swells_precision_but_not_density():
    x, y = normal(300, 2), normal(300, 2, seed=1) + 5
    with_outlier = np.concatenate([x, [[40.0, 40.0]]])
    assert precision_recall(with_outlier, y).precision > precision_recall(x, y).precision + 0.9
    assert density_coverage(with_outlier, y).density < density_coverage(x, y).density + 0.25


@loop_over("k", [1, 4])
def test_nearest_neighbours_against_a_tree(k):
    x, among = normal(40), normal(300, seed=1)
    found = nearest_neighbours(x, among, k=k)
    distance, index = cKDTree(among).query(x, k=[*range(1, k + 1)])
    np.testing.assert_array_equal(found.indices, index)
    np.testing.assert_allclose(found.distances, distance, rtol=1e-10)


def test_a_memorised_sample_is_at_distance_0():
    x = normal(50) + 1e3  # far from 0, where the matrix product would lose it
    found = nearest_neighbours(x[7:9], x)
    assert found.indices.ravel().tolist() == [7, 8]
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)


def test_blocks_change_nothing(monkeypatch):
    x, y = normal(57), normal(41, seed=1)
    whole = precision_recall(x, y), density_coverage(x, y), nearest_neighbours(x, y, k=2)
    monkeypatch.setattr(distances, "BLOCK", 41 * 3)
    blocked = precision_recall(x, y), density_coverage(x, y), nearest_neighbours(x, y, k=2)
    assert whole[:2] == blocked[:2]
    np.testing.assert_array_equal(whole[2].indices, blocked[2].indices)


@loop_over("columns", [1, 5, 64, 127, 128, 192, 193, 700, 64 * 20])
@loop_over("k", [1, 2, 4, 19])
@loop_over("values", ["all differ", "many ties", "rising", "falling"])
def test_the_smallest_are_found_wherever_they_are(columns, k, values):
    rng, k = np.random.default_rng(columns), min(k, columns)
    d2 = {
        "all differ": rng.permuted(np.tile(np.arange(columns, dtype=float), (30, 1)), axis=1),
        "many ties": rng.integers(0, 4, (30, columns)).astype(float),
        "rising": np.tile(np.arange(columns, dtype=float), (3, 1)),
        "falling": np.tile(-np.arange(columns, dtype=float), (3, 1)),
    }[values]
    found = smallest(d2, k)
    assert found.shape == (len(d2), k)
    assert all(len(set(row)) == k for row in found.tolist())
    np.testing.assert_array_equal(np.take_along_axis(d2, found, axis=1), np.sort(d2, axis=1)[:, :k])


def test_distances_are_those_of_pairs_far_from_0_too():
    x, y = normal(50) + 1e4, normal(70, seed=1) + 1e4
    found = np.concatenate([d2 for _, d2 in distances.blocks(x, y)])
    expected = np.square(x[:, None] - y).sum(axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_tensors_are_welcome():
    x, y = normal(20), normal(20, seed=1)
    assert precision_recall(torch.tensor(x, requires_grad=True), torch.tensor(y)) == precision_recall(x, y)


@loop_over("measure", [precision_recall, density_coverage])
def test_bad_input(measure):
    x = normal(10)
    with pytest.raises(ValueError, match="expected k between 1 and 9, one less than the samples of each set, got k=10"):
        measure(x, x, k=10)
    with pytest.raises(ValueError, match="the two sets have 6 and 5 features"):
        measure(x, x[:, :5])
    with pytest.raises(ValueError, match="1 of 10 rows of features hold NaN or Inf, the first is row 3"):
        measure(np.where(np.arange(10)[:, None] == 3, np.nan, x), x)


def test_bad_neighbours():
    with pytest.raises(ValueError, match="expected k between 1 and the 3 samples to search, got k=4"):
        nearest_neighbours(normal(5), normal(3), k=4)
    with pytest.raises(ValueError, match="the two sets have 6 and 2 values per sample"):
        nearest_neighbours(normal(5), normal(5, 2))


@loop_over("features", [8, 64, 500])
def test_rounding_does_not_decide_about_the_border(features):
    """Each ball ends at the nearest other sample, and a generated one lies opposite: as far, up to rounding."""
    x = np.random.default_rng(features).standard_normal((60, features)) + 3
    distances = np.linalg.norm(x[:, None] - x, axis=2) + np.diag(np.full(60, np.inf))
    y = 2 * x - x[distances.argmin(axis=1)]
    assert precision_recall(x, y, k=1).precision == 1
    inside = np.linalg.norm(x[:, None] - y, axis=2) < distances.min(axis=1)[:, None] * (1 - 1e-12)
    assert not inside.diagonal().any()
    found = density_coverage(x, y, k=1)
    assert found.density == pytest.approx(inside.sum() / 60, abs=1e-12)
    assert found.coverage == pytest.approx(inside.any(1).mean(), abs=1e-12)


def test_a_sample_on_the_border_counts_for_precision_and_not_for_density():
    """Naeem et al.'s code asks for less than the radius. Balls of radius 2 around 0 and 2, exact in float64."""
    real, border = np.array([[0.0], [2.0]]), np.array([[4.0], [-2.0]])
    assert density_coverage(real, border, k=1) == (0, 0)
    assert density_coverage(real, border * 0.99, k=1) == (1, 1)
    assert precision_recall(real, border, k=1).precision == 1
    assert precision_recall(real, border * 1.01, k=1).precision == 0


def test_a_copy_of_a_duplicate_is_at_distance_0_twice():
    x = np.repeat(np.random.default_rng(0).standard_normal((20, 100)) * 7, 2, axis=0)
    np.testing.assert_array_equal(nearest_neighbours(x[::2], x, k=2).distances, 0)
