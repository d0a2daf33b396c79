from __future__ import annotations

import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy.linalg import sqrtm

from equipoise.data import ArrayDataset, Digits
from equipoise.metrics import GaussianStats, dataset_features, digits_judge, frechet_distance, judge_features
from equipoise.metrics.frechet import by_eigenvalues
from equipoise.metrics.gaussian import by_cholesky


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def gaussian(rng, n, mean, covariance):
    """(n, F), whose own mean and covariance (over n - 1) are exactly these."""
    x = rng.normal(size=(n, len(mean)))
    white = np.linalg.qr(x - x.mean(0))[0] * np.sqrt(n - 1)
    values, vectors = np.linalg.eigh(covariance)
    return mean + white * np.sqrt(values.clip(0)) @ vectors.T


def correlated(rng, n, features):
    return rng.normal(size=(n, features)) @ rng.normal(size=(features, features)) + rng.normal(size=features)


def textbook(x, y):
    """The formula as it is written, with scipy's root of a matrix."""
    c, d = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)


# ---- the distance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [2, 7, 40])
def test_is_the_textbook_formula(rng, features):
    x, y = correlated(rng, 300, features), correlated(rng, 200, features)
    assert frechet_distance(x, y) == pytest.approx(textbook(x, y), rel=1e-9)


def test_one_feature_has_a_closed_form():
    """(m - m')² + (σ - σ')², with σ over n - 1."""
    x, y = np.array([[1.0], [2.0], [6.0]]), np.array([[0.0], [5.0]])
    expected = (3 - 2.5) ** 2 + (np.sqrt(14 / 2) - np.sqrt(12.5)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_covariances_that_commute_have_a_closed_form(rng):
    """|m - m'|² + Σ (√a - √b)² over the eigenvalues, in any common basis."""
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    a, b = rng.uniform(0.1, 9, size=(2, 6))
    m, n = rng.normal(size=(2, 6))
    x, y = gaussian(rng, 50, m, basis * a @ basis.T), gaussian(rng, 60, n, basis * b @ basis.T)
    expected = np.square(m - n).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_two_by_two_covariances_have_a_closed_form(rng):
    """Tr (C C')^½ = √(Tr C C' + 2 √det C C') for two features, also if they do not commute."""
    c, d = np.array([[2.0, 1.2], [1.2, 1.0]]), np.array([[1.0, -0.8], [-0.8, 3.0]])
    product = c @ d
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    x, y = gaussian(rng, 20, np.zeros(2), c), gaussian(rng, 30, np.zeros(2), d)
    assert frechet_distance(x, y) == pytest.approx(np.trace(c + d) - 2 * root, rel=1e-12)


def test_estimates_the_distance_of_the_distributions(rng):
    """N(0, 1) and N(1, 2²) in each of three features: 3 (1 + 1)."""
    assert frechet_distance(rng.normal(size=(200_000, 3)), 1 + 2 * rng.normal(size=(200_000, 3))) == pytest.approx(
        6, rel=0.02
    )


def test_is_symmetric_and_zero_for_a_set_and_itself(rng):
    x, y = correlated(rng, 100, 12), correlated(rng, 80, 12)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    assert frechet_distance(x, y) > 1
    for same in (x, rng.permutation(x)):
        assert 0 <= frechet_distance(x, same) < 1e-12 * np.trace(np.cov(x, rowvar=False))


@pytest.mark.parametrize("samples", [100, 5])
def test_a_shift_of_the_mean_adds_its_square(rng, samples):
    x, shift = correlated(rng, samples, 12), rng.normal(size=12)
    assert frechet_distance(x, x + shift) == pytest.approx(np.square(shift).sum(), rel=1e-10)


def test_rotating_both_sets_changes_nothing_and_scaling_both_scales_it(rng):
    x, y = correlated(rng, 100, 12), correlated(rng, 80, 12)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    expected = frechet_distance(x, y)
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * expected, rel=1e-10)


# ---- singular covariances --------------------------------------------------------------------------------


def test_sets_in_orthogonal_subspaces_share_nothing(rng):
    """Tr (C C')^½ = 0: exactly where the root of a rounded product is √ε too large, and may be complex."""
    x, y = np.zeros((30, 16)), np.zeros((40, 16))
    x[:, :8], y[:, 8:] = correlated(rng, 30, 8), correlated(rng, 40, 8)
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    x, y = (part @ rotation for part in (x, y))
    expected = np.square(x.mean(0) - y.mean(0)).sum() + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(5, 7), (5, 200), (2, 2)])
def test_fewer_samples_than_features(rng, n, m):
    """Against the samples themselves: the singular values of A Bᵀ (N, M), the rows of A and B being centred samples."""
    features = 50
    x, y = correlated(rng, n, features), correlated(rng, m, features)
    a, b = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (x, y))
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * root
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)
    eigenvalues = np.linalg.eigvals(a.T @ a @ b.T @ b)
    assert np.sqrt(eigenvalues.astype(complex)).real.sum() == pytest.approx(root, rel=1e-5)


def test_singular_covariances_of_a_line_have_a_closed_form():
    """Points on two lines at an angle φ: Tr (C C')^½ = σ σ' |cos φ|."""
    t, phi = np.array([[-1.0], [0.0], [1.0]]), 0.7
    x, y = t * [1.0, 0, 0], 2 * t * [np.cos(phi), np.sin(phi), 0]
    assert frechet_distance(x, y) == pytest.approx(1 + 4 - 2 * 2 * np.cos(phi), rel=1e-12)


def test_a_constant_feature_and_a_constant_set(rng):
    x = correlated(rng, 50, 4)
    with_constant = np.column_stack([x, np.full(50, 3.0)])
    assert frechet_distance(with_constant, with_constant + 1) == pytest.approx(5, rel=1e-10)
    constant = np.tile(x.mean(0), (20, 1))
    assert frechet_distance(x, constant) == pytest.approx(x.var(0, ddof=1).sum(), rel=1e-12)


# ---- the quick ways and the accurate ones ----------------------------------------------------------------


def accurate(x, y):
    """By QR decompositions and singular values of the samples themselves, which lose no digits."""
    a, b = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (x, y))
    roots = [np.linalg.qr(s, mode="r") for s in (a, b)]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return np.square(x.mean(0) - y.mean(0)).sum() + np.square(a).sum() + np.square(b).sum() - 2 * shared


def falling(rng, n, power, features=60):
    """(n, F), standard deviations k^-power along axes that are the same in every call."""
    axes = np.linalg.qr(np.random.default_rng(1).normal(size=(features, features)))[0]
    return (rng.normal(size=(n, features)) * np.arange(1, features + 1.0) ** -power) @ axes


def twins(rng, n, gap):
    """(n, 60): features that come in pairs, equal but for a part of `gap`."""
    x = rng.normal(size=(n, 30))
    return np.concatenate([x, x + gap * rng.normal(size=x.shape)], axis=1)


def with_constants(x):
    x = x.copy()
    x[:, 7], x[:, 9] = 3.1, 0
    return x


SETS = {
    "falls slowly": lambda rng: (falling(rng, 600, 0.5), 1.1 * falling(rng, 500, 0.5)),
    "falls": lambda rng: (falling(rng, 600, 1), 1.1 * falling(rng, 500, 1)),
    "falls fast": lambda rng: (falling(rng, 600, 4), 1.1 * falling(rng, 600, 4) + 0.01),
    "falls in one": lambda rng: (falling(rng, 600, 3), rng.normal(size=(600, 60))),
    "barely more samples": lambda rng: (falling(rng, 62, 1), falling(rng, 61, 1)),
    "as many samples": lambda rng: (falling(rng, 60, 1), falling(rng, 600, 1)),
    "constant in both": lambda rng: tuple(with_constants(falling(rng, 600, 1)) for _ in range(2)),
    "constant in one": lambda rng: (with_constants(falling(rng, 600, 1)), falling(rng, 600, 1)),
    "twins in one": lambda rng: (twins(rng, 600, 1e-7), rng.normal(size=(600, 60))),
    "twins in both": lambda rng: (twins(rng, 600, 1e-7), twins(rng, 600, 1e-5)),
    "tiny": lambda rng: (1e-8 * falling(rng, 600, 1), 1.1e-8 * falling(rng, 600, 1)),
    "huge": lambda rng: (1e8 * falling(rng, 600, 1), 1.1e8 * falling(rng, 600, 1)),
    "of many scales": lambda rng: tuple(falling(rng, 600, 1) * np.geomspace(1e-8, 1e8, 60) for _ in range(2)),
    "near": lambda rng: (lambda x: (x, x * (1 + 0.01 * rng.normal(size=x.shape))))(falling(rng, 600, 2)),
}


@pytest.mark.parametrize("name", SETS)
def test_the_quick_ways_lose_nothing(rng, name):
    x, y = SETS[name](rng)
    assert frechet_distance(x, y) == pytest.approx(accurate(x, y), rel=1e-11)
    parts = [reduce(add, map(GaussianStats, np.array_split(s, 7))) for s in (x, y)]
    assert frechet_distance(*parts) == pytest.approx(accurate(x, y), rel=1e-10)


def test_sets_that_hardly_differ(rng):
    """The distance is a millionth of the variances, and small eigenvalues would move its fifth digit."""
    for power in (1.5, 2):
        x = falling(rng, 600, power, features=200)
        y = x * (1 + 2e-3 * rng.normal(size=x.shape))
        assert frechet_distance(x, y) < 1e-5 * x.var(0).sum()
        assert frechet_distance(x, y) == pytest.approx(accurate(x, y), rel=1e-8)


def test_quick_ways_are_taken_where_they_are_safe(rng):
    """Cholesky's where the correlations allow it, whatever the scales; eigenvalues where the smallest are not tiny."""
    common, steep = falling(rng, 600, 0.5), falling(rng, 600, 4)
    for x in (common, with_constants(common), common * np.geomspace(1e-8, 1e8, 60), falling(rng, 62, 1)):
        centred = x - x.mean(0)
        factor = by_cholesky(centred)
        np.testing.assert_allclose(factor.T @ factor, centred.T @ centred, rtol=1e-9, atol=1e-12 * x.var())
        np.testing.assert_array_equal(factor, np.triu(factor))
    for x in (steep, twins(rng, 600, 1e-7), falling(rng, 60, 1)):
        assert by_cholesky(x - x.mean(0)) is None

    w = common.T @ falling(rng, 600, 1) / 600
    found, off = by_eigenvalues(w)
    exact = np.linalg.svd(w, compute_uv=False).sum()
    assert abs(found - exact) <= off < 1e-8 * exact
    for part in (w[:20], w[:, :20]):
        assert by_eigenvalues(part)[0] == pytest.approx(np.linalg.svd(part, compute_uv=False).sum(), rel=1e-12)
    for singular in (w * (np.arange(60) > 0), np.zeros((3, 3))):
        assert by_eigenvalues(singular)[1] == np.inf


def test_eigenvalues_are_not_further_off_than_they_say(rng):
    """In the common axes and across, where all are alike, and where most are tiny."""
    sure = 0
    for power in (0, 0.5, 1, 1.5, 2):
        x = falling(rng, 300, power)
        for y in (falling(rng, 300, power), falling(rng, 300, power)[:, ::-1], rng.normal(size=(300, 60))):
            w = x.T @ y / 300
            found, off = by_eigenvalues(w)
            if off < np.inf:
                sure += 1
                assert abs(found - np.linalg.svd(w, compute_uv=False).sum()) <= off
    assert sure >= 10


# ---- sums over batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 999), (500, 500), (7,) * 142 + (6,), (1,) * 30 + (970,), (1000,)])
def test_a_sum_over_batches_is_the_whole(rng, sizes):
    x = correlated(rng, 1000, 16) + 1e3  # far from 0, where sums of squares would cancel
    stats = reduce(add, map(GaussianStats, np.split(x, np.cumsum(sizes)[:-1])))
    assert stats.count == 1000
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-13)
    np.testing.assert_allclose(stats.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-10)
    assert len(stats.factor) <= 32
    y = correlated(rng, 1000, 16) + 1e3
    assert frechet_distance(stats, y) == pytest.approx(frechet_distance(x, y), rel=1e-10)


def test_the_order_of_batches_does_not_matter(rng):
    x, y = correlated(rng, 600, 20), correlated(rng, 100, 20)
    parts = [GaussianStats(part) for part in np.split(x, [10, 11, 200, 350])]
    expected = frechet_distance(reduce(add, parts), y)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        assert frechet_distance(reduce(add, [parts[i] for i in order]), y) == pytest.approx(expected, rel=1e-10)
    nested = (parts[0] + parts[1]) + (parts[2] + (parts[3] + parts[4]))
    assert frechet_distance(nested, y) == pytest.approx(expected, rel=1e-10)


def test_sums_over_few_samples_keep_every_digit(rng):
    x, y = correlated(rng, 9, 40), correlated(rng, 30, 40)
    streamed = [reduce(add, map(GaussianStats, np.split(s, 3))) for s in (x, y)]
    assert frechet_distance(*streamed) == pytest.approx(frechet_distance(x, y), rel=1e-12)
    assert frechet_distance(streamed[0], x) < 1e-12 * x.var(0).sum()


def test_adding_changes_neither_term(rng):
    x = rng.normal(size=(5, 3))
    a, b = GaussianStats(x[:2]), GaussianStats(x[2:])
    before = [(s.count, s.mean.copy(), s.factor.copy()) for s in (a, b)]
    both = a + b
    both.mean += 1
    both.factor += 1
    for s, (count, mean, factor) in zip((a, b), before, strict=True):
        assert s.count == count
        np.testing.assert_array_equal(s.mean, mean)
        np.testing.assert_array_equal(s.factor, factor)


def test_stats_travel_between_processes(rng):
    x, y = correlated(rng, 50, 4), correlated(rng, 50, 4)
    sent = pickle.loads(pickle.dumps(GaussianStats(x)))
    assert frechet_distance(sent, y) == frechet_distance(x, y)


# ---- what is given ---------------------------------------------------------------------------------------


def test_tensors_of_any_kind_and_lists_are_welcome(rng):
    x, y = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(40, 4)).astype(np.float32)
    expected = frechet_distance(x.astype(np.float64), y.astype(np.float64))
    tensors = torch.tensor(x, requires_grad=True), torch.tensor(y)
    for pair in ((x, y), tensors, (x.tolist(), y.tolist()), (GaussianStats(tensors[0]), y)):
        found = frechet_distance(*pair)
        assert isinstance(found, float)
        assert found == pytest.approx(expected, rel=1e-12)  # sums in float64, whatever comes in
    coarse = tensors[0].detach().bfloat16()
    assert frechet_distance(coarse, y) == pytest.approx(frechet_distance(coarse.double(), y), rel=1e-12)


@loop_over(
    ("x", "message"),
    [
        (np.zeros(5), r"shape \(N, F\).*got shape \(5,\)"),
        (np.zeros((0, 3)), r"at least 1, got shape \(0, 3\)"),
        (np.zeros((5, 0)), r"got shape \(5, 0\)"),
        (np.zeros((2, 3, 4)), r"got shape \(2, 3, 4\)"),
        (np.array([[0.0, 1, 2], [np.nan, 0, np.inf], [0, 0, -np.inf]]), "2 of 3 rows .* the first is row 1"),
        (np.zeros((1, 3)), "a single sample has no covariance: give at least 2"),
        (np.zeros((4, 2)), "have (2 and 3|3 and 2) features.*same layer"),
    ],
)
def test_what_has_no_distance_is_refused(x, message):
    y = np.eye(3)
    for pair in ((x, y), (y, x)):
        with pytest.raises(ValueError, match=message):
            frechet_distance(*pair)


def test_stats_of_other_features_do_not_add():
    with pytest.raises(ValueError, match="have 3 and 2 features"):
        GaussianStats(np.eye(3)) + GaussianStats(np.eye(2))
    with pytest.raises(ValueError, match="a single sample"):
        _ = GaussianStats(np.ones((1, 2))).covariance


# ---- with the judge's features ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """Every eighth bundled digit, uint8 (1250, 28, 28, 1)."""
    data = Digits().build()
    return data.read(np.arange(0, len(data), 8)).transpose(0, 2, 3, 1)


def test_judge_features_are_the_features_of_each_image(digits):
    judge, x = digits_judge(), digits[:300]
    whole = judge_features(judge, x)
    assert whole.shape == (300, 64)
    assert whole.dtype == np.float64
    direct = judge.features(torch.tensor(x).permute(0, 3, 1, 2) / 255 * 2 - 1)
    np.testing.assert_allclose(whole, direct, atol=1e-5)
    np.testing.assert_allclose(judge_features(judge, x, batch_size=7), whole, atol=1e-5)
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, C\).*got uint8 of shape \(300, 28, 28\)"):
        judge_features(judge, x[..., 0])
    with pytest.raises(ValueError, match="grey 28x28 images"):
        judge_features(judge, np.zeros((2, 30, 30, 1), np.uint8))


def test_a_data_sets_features_are_those_of_all_its_images(digits):
    judge = digits_judge()
    stats = dataset_features(judge, ArrayDataset(digits.transpose(0, 3, 1, 2)), batch_size=400)
    features = judge_features(judge, digits)
    assert stats.count == len(digits) == 1250
    np.testing.assert_allclose(stats.mean, features.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats.covariance, np.cov(features, rowvar=False), atol=1e-5)


def test_the_judges_distance_rises_with_blur_noise_and_missing_classes(digits):
    judge, data = digits_judge(), Digits().build()
    rng = np.random.default_rng(0)
    half, other = digits[::2], digits[1::2]
    reference = judge_features(judge, half)
    real = frechet_distance(reference, judge_features(judge, other))

    def distance(images):
        return frechet_distance(reference, judge_features(judge, images.clip(0, 255).astype(np.uint8)))

    noisy = [distance(other + rng.normal(0, std, other.shape)) for std in (20, 60, 120)]
    assert real < noisy[0] < noisy[1] < noisy[2]
    classes = data.labels[np.arange(8, len(data), 16)]
    few = [distance(other[classes < k]) for k in (9, 5, 1)]
    assert 2 * real < few[0] < few[1] < few[2]
