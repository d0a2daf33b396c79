"""How measures are fooled: the cheats are what they say, and Parzen, IS and Fréchet distance fall for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from scipy.ndimage import uniform_filter

pytest.importorskip("matplotlib")

from equipoise.core.randomness import Purpose, stream
from equipoise.data import Digits
from equipoise.lab.theory.fooling import (
    FAINT,
    HONEST,
    MEASURES,
    MIRRORED,
    SEEN,
    TRAINING,
    VECTORS,
    Fooling,
    bias,
    blurred,
    centroids,
    every_fourth,
    faint_noise,
    fooled,
    sure_noise,
    with_moments,
)
from equipoise.metrics import GaussianStats, class_probabilities, digits_judge, frechet_distance, judge_features


@pytest.fixture(scope="module")
def numbers():
    return Fooling(samples=400).run()


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Some bundled digits of all classes, uint8 (200, 28, 28, 1)."""
    return Digits().build().read(np.arange(0, 10_000, 50)).transpose(0, 2, 3, 1)


def random(seed=0):
    return stream(seed, Purpose.SAMPLES)


def cheats_that_fool(numbers, key):
    return {name for name, found in numbers["cheats"].items() if key in found and fooled(numbers, name, key)}


# ---- what fools what -------------------------------------------------------------------------------------


def test_parzen_ranks_centroids_and_blur_above_real_images(numbers):
    best = max(found["parzen"] for found in numbers["honest"])
    spread = best - min(found["parzen"] for found in numbers["honest"])
    assert numbers["cheats"]["k-means centroids"]["parzen"] > best + 50
    assert numbers["cheats"]["k-means centroids"]["parzen"] > best + 3 * spread
    assert numbers["cheats"]["a quarter blurred"]["parzen"] > best
    assert not fooled(numbers, "one image per class", "parzen")
    assert not fooled(numbers, "noise", "parzen")


def test_the_inception_score_is_highest_for_one_image_per_class_and_for_noise(numbers):
    for name in ("one image per class", "noise"):
        assert numbers["cheats"][name]["inception"] == pytest.approx(10, abs=0.1)
    assert max(found["inception"] for found in numbers["honest"]) < 9.6
    assert not fooled(numbers, "no eights", "inception")


def test_the_frechet_distance_is_0_for_vectors_with_the_same_two_moments(numbers):
    assert numbers["cheats"][VECTORS]["frechet"] == pytest.approx(0, abs=1e-9)
    assert min(found["frechet"] for found in numbers["honest"]) > 0.3
    assert numbers["cheats"][VECTORS]["inception"] < 6  # which tells them from digits
    assert cheats_that_fool(numbers, "frechet") == {TRAINING, VECTORS}


def test_no_measure_sees_that_the_training_digits_are_copied(numbers):
    found = numbers["cheats"][TRAINING]
    assert found["frechet"] < 0.8 * min(one["frechet"] for one in numbers["honest"])
    for key in ("parzen", "inception"):
        values = [one[key] for one in numbers["honest"]]
        assert found[key] == pytest.approx(np.mean(values), rel=0.1)


def test_noise_that_no_one_sees_moves_the_frechet_distance_more_than_mirrored_digits(numbers):
    distance = {name: found["frechet"] for name, found in numbers["cheats"].items()}
    honest = max(found["frechet"] for found in numbers["honest"])
    assert distance["faint noise"] > distance["no eights"] > distance[MIRRORED] > honest


def test_the_frechet_distance_falls_with_the_number_of_samples_as_theory_has_it(numbers):
    n, distances = (np.array(numbers["by_number"][HONEST][key]) for key in ("samples", "frechet"))
    assert (np.diff(n) < 0).all()
    assert (np.diff(distances) > 0).all()
    assert numbers["reference"] == n[0] == 1600
    large = n > 150  # than the 64 features
    expected = numbers["bias"] * (1 / n + 1 / 1600)
    np.testing.assert_allclose(distances[large], expected[large], rtol=0.2)
    copies = np.array(numbers["by_number"][TRAINING]["frechet"])
    assert (copies < distances).all()
    assert copies[0] == pytest.approx(0, abs=1e-9)


def test_the_images_are_those_of_the_sets(numbers):
    """What is made of held-out digits is made of those that were not trained on."""
    shown = {name: np.asarray(images).astype(int) for name, images in numbers["images"].items()}
    assert set(shown) == set(SEEN) - {VECTORS}
    assert {images.shape for images in shown.values()} == {(8, 28, 28)}
    assert (shown[TRAINING] != shown[HONEST]).any(axis=(1, 2)).all()
    assert np.abs(shown["faint noise"] - shown[HONEST]).max() == FAINT
    kept = np.arange(8) % 4 != 1
    for name in ("a quarter blurred", MIRRORED):
        np.testing.assert_array_equal(shown[name][kept], shown[HONEST][kept])
    np.testing.assert_array_equal(shown[MIRRORED][~kept], shown[HONEST][~kept, :, ::-1])


def test_fooled_is_no_worse_than_the_worst_honest_set():
    numbers = {
        "honest": [{"parzen": 2.0, "frechet": 2.0}, {"parzen": 1.0, "frechet": 1.0}, {"parzen": 3.0, "frechet": 3.0}],
        "cheats": {name: {"parzen": value, "frechet": value} for name, value in (("a", 0.9), ("b", 2.9), ("c", 3.1))},
    }
    assert cheats_that_fool(numbers, "parzen") == {"b", "c"}
    assert cheats_that_fool(numbers, "frechet") == {"a", "b"}


def test_the_table_has_each_set_and_says_what_it_fools(numbers):
    table = Fooling().table(numbers)
    assert [row[0] for row in table.rows] == list(SEEN) == [HONEST, *numbers["cheats"]]
    marked = {(row[0], i) for row in table.rows for i, cell in enumerate(row) if "(fooled)" in cell}
    keys = list(MEASURES)
    assert marked == {(name, keys.index(key) + 1) for key in MEASURES for name in cheats_that_fool(numbers, key)}


# ---- the bias --------------------------------------------------------------------------------------------


def test_the_bias_is_what_gaussian_samples_have():
    rng = np.random.default_rng(0)
    values = np.array([4.0, 1.0, 0.5, 0.1])
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    root = turn * np.sqrt(values)
    n, m = 200, 300
    found = [frechet_distance(rng.normal(size=(n, 4)) @ root.T, rng.normal(size=(m, 4)) @ root.T) for _ in range(800)]
    assert np.mean(found) == pytest.approx(bias(root @ root.T) * (1 / n + 1 / m), rel=0.06)


def test_the_bias_has_closed_forms():
    """One feature: σ² for the means and σ²/2 for σ. Equal eigenvalues: λ F + λ (F² + F)/4."""
    assert bias(np.array([[3.0]])) == pytest.approx(4.5)
    assert bias(2 * np.eye(7)) == pytest.approx(2 * 7 + 2 * (49 + 7) / 4)
    assert bias(np.diag([3.0, 0.0])) == pytest.approx(4.5)


# ---- the cheats ------------------------------------------------------------------------------------------


def test_centroids_are_those_of_scipys_k_means(digits):
    found = centroids(digits, 12, steps=7)
    flat = digits.reshape(len(digits), -1).astype(float)
    expected, _ = kmeans2(flat, flat[:12], iter=7, minit="matrix", missing="raise")
    assert found.shape == (12, 28, 28, 1)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found.reshape(12, -1), expected, atol=0.51)


def test_a_centroid_that_no_image_is_nearest_to_stays(digits):
    twice = np.concatenate([digits[:1], digits[:1], digits[1:5]])
    found = centroids(twice, 2, steps=3)
    np.testing.assert_array_equal(found[1], digits[0])
    np.testing.assert_array_equal(centroids(digits, len(digits), steps=5), digits)


def test_the_judge_is_sure_of_each_noise(digits):
    judge = digits_judge()
    noise = sure_noise(judge, random(), steps=30)
    p = class_probabilities(judge, noise)
    assert (p.argmax(1) == np.arange(10)).all()
    assert p.max(1).min() > 0.9
    x = noise.astype(float)
    roughness = np.abs(np.diff(x, axis=1)).mean(axis=(1, 2, 3))
    assert roughness.min() > 50 > 2 * np.abs(np.diff(digits.astype(float), axis=1)).mean()


def test_faint_noise_is_faint_and_makes_features_smaller(digits):
    judge = digits_judge()
    noisy = faint_noise(judge, digits)
    moved = np.abs(noisy.astype(int) - digits)
    assert moved.max() == FAINT
    assert set(np.unique(moved)) <= set(range(FAINT + 1))  # less at black and white
    before, after = (judge_features(judge, images).sum(1) for images in (digits, noisy))
    assert (after < before).all()


def test_blur_is_a_mean_over_5x5_pixels(digits):
    expected = uniform_filter(digits[..., 0].astype(float), size=(0, 5, 5), mode="constant")
    np.testing.assert_allclose(blurred(digits)[..., 0], expected, atol=0.51)


def test_every_fourth_image_is_changed(digits):
    mixed = every_fourth(255 - digits, digits)
    changed = (mixed != digits).any(axis=(1, 2, 3))
    assert changed.sum() == len(digits) / 4
    np.testing.assert_array_equal(mixed[changed], 255 - digits[changed])


def test_vectors_have_exactly_the_moments_of_features_that_they_are_not_like(digits):
    features = judge_features(digits_judge(), digits)
    stats = GaussianStats(features)
    vectors = with_moments(stats, 90, random())
    np.testing.assert_allclose(vectors.mean(0), stats.mean, atol=1e-10)
    np.testing.assert_allclose(np.cov(vectors, rowvar=False), stats.covariance, atol=1e-10)
    assert (vectors < 0).mean() > 0.1 > (features < 0).mean() == 0
    assert not torch.equal(*(torch.from_numpy(with_moments(stats, 90, random(seed))) for seed in (0, 1)))
