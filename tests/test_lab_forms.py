"""The lab: what an experiment leaves, the command, and the theory of densities, divergences, lines and bounds."""

from __future__ import annotations

import json
import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from loops import loop_over
from PIL import Image
from scipy.integrate import quad
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import expit, xlogy
from scipy.stats import norm
from torch import nn
from torch.testing import assert_close
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.core.types import Logits, RunError
from equipoise.lab import available, load
from equipoise.lab.base import Experiment, carry_out, plain
from equipoise.lab.theory.clipping import Clipping
from equipoise.lab.theory.divergences import Divergences
from equipoise.lab.theory.duality import Duality
from equipoise.lab.theory.fooling import Fooling
from equipoise.lab.theory.optimal_discriminator import (
    OptimalDiscriminator,
    expected_d_loss,
    jsd,
    kl,
    where_samples_are,
)
from equipoise.lab.theory.parallel_lines import ParallelLines, earth_movers_distance
from equipoise.lab.theory.particles import Particles
from equipoise.lab.theory.power_iteration import PowerIteration, largest_gradient, with_spectrum
from equipoise.lab.theory.san_direction import SANDirection
from equipoise.lab.theory.saturation import Saturation
from equipoise.lab.theory.smoothing import Smoothing, best_logits, two_sided
from equipoise.lab.theory.unit_gradient import UnitGradient
from equipoise.losses import GradientPenalty, Hinge, LeastSquares, NonSaturating, Saturating, SoftLeastSquares
from equipoise.weights import SpectralNorm

SHORT = {
    "clipping": Clipping(bounds=(0.1,), depth=2, width=8, steps=2, batch_size=8),
    "divergences": Divergences(steps=4),
    "duality": Duality(pairs=("Gaussian, moved 1",), points=20, steps=2, batch_size=8, width=8, clips=(0.1,)),
    "fooling": Fooling(samples=100, steps=1),
    "optimal_discriminator": OptimalDiscriminator(steps=3, batch_size=8),
    "parallel_lines": ParallelLines(steps=2, thetas=(-1.0, 0.0, 0.5)),
    "particles": Particles(num=10, steps=2, d_steps=1, frames=3),
    "power_iteration": PowerIteration(steps=3, size=8, d_steps=1, depths=(1, 2)),
    "san_direction": SANDirection(iterations=2, moments=2, seeds=1, samples=120, steps=2, width=8),
    "saturation": Saturation(),
    "smoothing": Smoothing(bins=40),
    "unit_gradient": UnitGradient(points=20, steps=2, batch_size=8, width=8),
}
PICTURES = {
    "clipping": {"clipping.png", "clipping_critics.png"},
    "divergences": {"divergences.png", "divergences_descent.webp"},
    "duality": {"duality.png", "duality_pairs.png"},
    "fooling": {"fooling.png", "fooling_frechet.png"},
    "optimal_discriminator": {"optimal_discriminator.png", "optimal_discriminator_moving.webp"},
    "particles": {"particles.png", "particles_moving.webp"},
    "san_direction": {"san_direction.png", "san_direction_moving.webp"},
    "unit_gradient": {"unit_gradient.png", "unit_gradient_training.webp"},
}
"""By default NAME.png alone."""


@pytest.fixture(autouse=True, scope="module")
def coarse_figures():
    with patch("equipoise.core.plots.DPI", 70):
        yield


# ---- experiments -----------------------------------------------------------------------------------------


def test_the_listing():
    known = available()
    assert set(SHORT) <= set(known)
    assert not {"base", "plots", "__init__"} & set(known)


@pytest.mark.parametrize("name", available())
def test_every_experiment_loads_and_has_defaults(name):
    experiment = load(name)
    assert issubclass(experiment, Experiment)
    assert experiment.__doc__.startswith(available()[name])
    assert available()[name]
    assert experiment() == experiment()


def test_an_unknown_experiment_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="there is no experiment 'saturate'; did you mean 'saturation'"):
        load("saturate")
    with pytest.raises(ValueError, match=r"no experiment 'xyz'; known: .*divergences, .*smoothing"):
        load("xyz")


@pytest.mark.parametrize("name", SHORT)
def test_it_leaves_its_numbers_and_pictures_and_equal_settings_leave_equal_ones(name, tmp_path):
    random = torch.get_rng_state()
    table, files = carry_out(SHORT[name], name, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), random)  # nobody else's randomness is touched
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert table.rows
    assert {file.name for file in files} == PICTURES.get(name, {f"{name}.png"}) | {f"{name}.json"}
    assert sorted(files) == sorted((tmp_path / "a").iterdir())

    found = json.loads((tmp_path / "a" / f"{name}.json").read_text(), parse_constant=pytest.fail)  # NaN, Infinity
    assert found["experiment"] == repr(SHORT[name])
    assert found["numbers"]
    for file in files:
        if file.suffix in (".png", ".webp"):
            with Image.open(file) as picture:
                assert min(picture.size) > 150
                assert getattr(picture, "n_frames", 1) > 1 or file.suffix == ".png"
                assert len(set(picture.convert("L").tobytes())) > 8  # something is drawn

    torch.rand(7)
    assert json.loads(json.dumps(SHORT[name].run(), default=plain)) == found["numbers"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write to .*file"):
        carry_out(Saturation(), "saturation", tmp_path / "file")


# ---- the command -----------------------------------------------------------------------------------------


def lab(*arguments, code=0):
    result = CliRunner().invoke(app, ["lab", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_the_command_lists():
    listed = lab()
    for name in SHORT:
        assert f"{name} " in listed


def test_the_command_runs_one_with_other_settings(tmp_path):
    said = lab("saturation", "reach=3", "--out", tmp_path / "s")
    assert "gradient at -3" in said
    assert f"{tmp_path}/s/saturation.png" in said
    found = json.loads((tmp_path / "s" / "saturation.json").read_text())
    assert found["experiment"] == "Saturation(reach=3.0)"
    assert found["numbers"]["logit"][-1] == 3


def test_the_command_gives_components(tmp_path):
    short = ("size=8", "steps=3", "d_steps=1", "depths=[1]")
    lab("power_iteration", "normalizer=SpectralNorm(iterations=2)", *short, "--out", tmp_path)
    assert "SpectralNorm(iterations=2" in (tmp_path / "power_iteration.json").read_text()


@loop_over(
    ("arguments", "message"),
    [
        (["saturatoin"], "there is no experiment 'saturatoin'; did you mean 'saturation'?"),
        (["saturation", "reech=3"], "Saturation has no field 'reech'; did you mean 'reach'?"),
        (["saturation", "reach=-1"], "Saturation.reach"),
        (["saturation", "reach"], "'reach' is not an override"),
        (["smoothing", "alpha=0.5"], "Smoothing.alpha"),
        (["parallel_lines", "penalty=Hinge"], "takes a GradientPenalty, got Hinge"),
        (["all", "seed=1"], "settings belong to one experiment: name it instead of all to change 'seed=1'"),
    ],
)
def test_bad_input_is_one_clear_message(arguments, message, tmp_path):
    said = lab(*arguments, "--out", tmp_path / "out", code=2)
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_all_runs_every_one(tmp_path, monkeypatch):
    monkeypatch.setattr("equipoise.lab.available", lambda: {"saturation": "", "smoothing": ""})
    lab("all", "--out", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        *("saturation.json", "saturation.png"),
        *("smoothing.json", "smoothing.png"),
    }


# ---- saturation ------------------------------------------------------------------------------------------


def test_the_saturating_gradient_vanishes_and_the_other_does_not():
    numbers = Saturation(reach=30.0).run()
    t, losses = numbers["logit"], numbers["losses"]
    np.testing.assert_allclose(losses["saturating"]["gradient"], -expit(t), atol=1e-14)
    np.testing.assert_allclose(losses["non-saturating"]["gradient"], -expit(-t), atol=1e-14)
    assert t[0] == -30
    assert abs(losses["saturating"]["gradient"][0]) < 1e-12
    assert abs(losses["non-saturating"]["gradient"][0] + 1) < 1e-12
    for name, slope in (("hinge, Wasserstein", -1 + 0 * t), ("least squares", t - 1)):
        np.testing.assert_allclose(losses[name]["gradient"], slope, atol=1e-14)


# ---- the best D ------------------------------------------------------------------------------------------


def density(x):
    return 0.6 * norm.pdf(x, -1.5, 0.6) + 0.4 * norm.pdf(x, 1.5, 0.4)


def jsd_by_quadrature(p, q):
    def integrand(x):
        m = (p(x) + q(x)) / 2
        return (xlogy(p(x), p(x) / m) + xlogy(q(x), q(x) / m)) / 2

    return quad(integrand, -9, 9, points=(-1.5, 0, 1.5), limit=200)[0]


@pytest.fixture(scope="module")
def trained():
    return OptimalDiscriminator(steps=400).run()


def test_a_trained_d_is_p_over_p_plus_q_where_there_is_data(trained):
    x = trained["x"].numpy()
    p, q = density(x), norm.pdf(x, 0.5, 1.2)
    np.testing.assert_allclose(trained["best"], p / (p + q), atol=1e-12)
    within = trained["within"].numpy()
    dx = x[1] - x[0]
    assert abs((p + q)[within].sum() * dx / 2 - 0.99) < 0.002
    assert (p + q)[within].min() >= (p + q)[~within].max()
    error = np.abs(trained["learned"]["400"].numpy() - p / (p + q))[within].max()
    assert error == pytest.approx(trained["error"])
    assert error < 0.05
    assert np.abs(trained["learned"]["0"].numpy() - p / (p + q))[within].max() > 0.3  # it was trained to


def test_its_frames_are_its_outputs_on_the_way(trained):
    steps, outputs = trained["moving"]["step"], trained["moving"]["output"]
    assert steps[:2] == [0, 1]
    assert steps[-1] == 400
    assert len(steps) == len(outputs) > 30
    assert set(steps) <= set(trained["curve"]["step"])
    for k, step in ((0, "0"), (-1, "400")):
        assert_close(outputs[k], trained["learned"][step][::10])


def test_its_value_is_the_jsd_and_no_d_has_more(trained):
    expected = jsd_by_quadrature(density, lambda x: norm.pdf(x, 0.5, 1.2))
    assert trained["jsd"] == pytest.approx(expected, abs=1e-7)
    values = trained["curve"]["value"]
    assert max(values) <= -math.log(4) + 2 * expected + 1e-6
    assert values[-1] == pytest.approx(-math.log(4) + 2 * expected, abs=0.01)
    assert values[0] < values[-1] - 0.1


def test_divergences_of_gaussians_and_of_disjoint_densities():
    x = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    log_p, log_q = (torch.distributions.Normal(m, s).log_prob(x) for m, s in ((0.0, 1.0), (1.0, 2.0)))
    assert kl(log_p, log_q, 0.01).item() == pytest.approx(math.log(2) + 2 / 8 - 1 / 2, abs=1e-8)
    assert jsd(log_p, log_p, 0.01).item() == pytest.approx(0, abs=1e-12)
    far = torch.distributions.Normal(torch.tensor([-8.0, 8.0])[:, None].double(), 0.3).log_prob(x)
    assert jsd(far[0], far[1], 0.01).item() == pytest.approx(math.log(2), abs=1e-9)


@loop_over("loss", [NonSaturating(0.1), Saturating(), Hinge(), LeastSquares(), SoftLeastSquares()])
def test_the_expected_loss_is_that_of_independent_pairs(loss):
    t = torch.randn(5, dtype=torch.float64) * 2
    p, q = torch.rand(2, 5, dtype=torch.float64).softmax(1)
    pairs = sum(p[i] * q[j] * loss.d(t[i], t[j]) for i in range(5) for j in range(5))
    assert_close(expected_d_loss(loss, t, p, q), pairs)


def test_samples_are_where_the_densities_are_high():
    p, q = torch.tensor([[0.5, 0.3, 0.19, 0.01, 0.0], [0.5, 0.3, 0.19, 0.0, 0.01]], dtype=torch.float64)
    assert where_samples_are(p, q).tolist() == [True, True, True, False, False]


# ---- divergences -----------------------------------------------------------------------------------------


GRID = np.linspace(-14, 14, 4001)
STEP = GRID[1] - GRID[0]
MIXTURE = 0.7 * norm.pdf(GRID, -2, 0.7) + 0.3 * norm.pdf(GRID, 2, 0.7)


def squared_mmd(mean, std, h=1.0):
    """In closed form: E exp(-(x - y)²/2h²) = h √(2π) N(difference of means; 0, sum of variances + h²)."""
    parts = ((0.7, -2, 0.7), (0.3, 2, 0.7), (-1, mean, std))
    pairs = ((a * b, m - n, s, r) for a, m, s in parts for b, n, r in parts)
    return sum(w * h * math.sqrt(2 * math.pi) * norm.pdf(d, 0, math.sqrt(s**2 + r**2 + h**2)) for w, d, s, r in pairs)


def reference(name, mean, std):
    p, q = MIXTURE, norm.pdf(GRID, mean, std) + 1e-300
    m = (p + q) / 2
    match name:
        case "KL(p‖q)":
            return (xlogy(p, p) - p * norm.logpdf(GRID, mean, std)).sum() * STEP
        case "KL(q‖p)":
            return (xlogy(q, q) - q * np.log(p)).sum() * STEP
        case "JSD":
            return (xlogy(p, p / m) + xlogy(q, q / m)).sum() * STEP / 2
        case "MMD":
            return math.sqrt(max(squared_mmd(mean, std), 0))


@pytest.fixture(scope="module")
def fits():
    return Divergences().run()["fits"]


@pytest.mark.parametrize("name", ["KL(p‖q)", "KL(q‖p)", "JSD", "MMD"])
def test_the_best_gaussian_is_the_one_that_another_minimiser_finds(fits, name):
    tries = [
        minimize(lambda v: reference(name, v[0], math.exp(v[1])), start, method="Nelder-Mead", tol=1e-9)
        for start in ((-2, -0.3), (-0.5, 0.7), (2, -0.3))
    ]
    best = min(tries, key=lambda found: found.fun)
    fit = fits[name]
    assert (fit["mean"], fit["std"]) == pytest.approx((best.x[0], math.exp(best.x[1])), abs=2e-3)
    assert fit["value"] == pytest.approx(best.fun, abs=1e-5)


def test_kl_covers_the_modes_and_reverse_kl_seeks_one(fits):
    forward, reverse = fits["KL(p‖q)"], fits["KL(q‖p)"]
    moments = 0.7 * -2 + 0.3 * 2, math.sqrt(0.7**2 + 0.7 * 0.3 * 4**2)  # of the mixture
    assert (forward["mean"], forward["std"]) == pytest.approx(moments, abs=2e-3)
    assert (reverse["mean"], reverse["std"]) == pytest.approx((-2, 0.7), abs=0.05)
    assert reverse["value"] == pytest.approx(-math.log(0.7), abs=0.01)  # one mode, of that weight
    assert forward["covered"] > 0.95 > 0.75 > reverse["covered"]
    assert forward["invented"] > 0.15 > 0.05 > reverse["invented"]


def test_a_mixture_that_is_a_gaussian_is_fitted_by_all():
    for name, fit in Divergences(distance=0.0, steps=120).run()["fits"].items():
        assert (fit["mean"], fit["std"]) == pytest.approx((0, 0.7), abs=0.01), name
        assert fit["value"] == pytest.approx(0, abs=0.003)


# ---- parallel lines --------------------------------------------------------------------------------------


def test_the_exact_distance_is_that_of_the_best_assignment():
    z, other = torch.rand(2, 60, dtype=torch.float64)
    for theta in (-0.7, 0.0, 0.05):
        costs = np.hypot(theta, z.numpy()[:, None] - other.numpy())
        best = costs[linear_sum_assignment(costs)].mean()
        assert earth_movers_distance(theta, z, other) == pytest.approx(best, abs=1e-12)


@pytest.fixture(scope="module")
def lines():
    found = ParallelLines(thetas=(-1.0, 0.0, 0.3), penalty=GradientPenalty(strength=20), steps=240).run()["lines"]
    return {line["theta"]: line for line in found}


def test_w_is_the_distance_and_a_critic_finds_it(lines):
    for theta, line in lines.items():
        assert line["exact"] == pytest.approx(abs(theta), abs=0.01)
        allowed = abs(theta) * (1 + abs(theta) / 40)  # max over s of s |θ| - 20 (s - 1)²
        assert line["critic"] == pytest.approx(allowed, abs=0.02)
        assert theta == 0 or line["critic_slope"] == pytest.approx(math.copysign(1, theta), abs=0.1)


def test_jsd_is_log_2_at_any_distance_and_gives_no_slope(lines):
    for theta, line in lines.items():
        assert line["jsd"] == pytest.approx(math.log(2) if theta else 0, abs=0.005)
        assert line["jsd"] <= math.log(2)
        assert abs(line["jsd_slope"]) < 0.05


def test_kl_grows_without_bound_as_noise_goes(lines):
    for theta, line in lines.items():
        assert line["kl"] == pytest.approx([theta**2 / (2 * noise**2) for noise in (0.1, 0.01, 0.001)], rel=1e-6)


# ---- smoothing -------------------------------------------------------------------------------------------


def test_two_sided_smoothing_is_cross_entropy_with_both_targets():
    real, fake = torch.randn(2, 6, dtype=torch.float64) * 3

    def entropy(logits, target):
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")

    assert_close(two_sided(0.1, 0.3)(real, fake), entropy(real, 0.9) + entropy(fake, 0.3))


def test_the_best_d_is_that_of_the_theory():
    numbers = Smoothing(alpha=0.2, beta=0.05).run()
    x = numbers["x"].numpy()
    p = norm.pdf(x, 2, 0.8)
    q = (norm.pdf(x, -2, 0.5) + norm.pdf(x, 2, 0.5)) / 2
    expected = {"none": p, "one-sided": 0.8 * p, "two-sided": 0.8 * p + 0.05 * q}
    for name, above in expected.items():
        np.testing.assert_allclose(numbers["smoothing"][name]["output"], above / (p + q), atol=1e-10)


def test_a_least_squares_d_has_a_best_one_too():
    p, q = torch.rand(2, 7, dtype=torch.float64)
    assert_close(best_logits(LeastSquares().d, p, q), p / (p + q))  # a = 0, b = 1 (Mao et al. 2017, eq. 5)


def test_only_two_sided_smoothing_leaves_mistakes_where_they_are():
    found = Smoothing().run()["smoothing"]
    x = -2.0
    slope = -(x - 2) / 0.64 + (x + 2) / 0.25  # of log p - log q, and D is sure there: the push is the slope
    for name in ("none", "one-sided"):
        assert found[name]["at_mistake"] == pytest.approx(slope, rel=0.05)
    assert abs(found["two-sided"]["at_mistake"]) < 0.01
    assert found["none"]["largest"] > 0.999
    assert found["one-sided"]["largest"] == pytest.approx(0.9, abs=1e-3)


# ---- power iteration -------------------------------------------------------------------------------------


def test_a_matrix_has_the_singular_values_that_were_asked_for():
    values = torch.tensor([3.0, 2.0, 0.5, 0.1], dtype=torch.float64)
    assert_close(torch.linalg.svdvals(with_spectrum(values)), values)


@pytest.fixture(scope="module")
def measured():
    return PowerIteration(ratios=(0.5, 0.8), size=32, steps=40, depths=(1, 3), d_steps=60).run()


@pytest.mark.parametrize("iterations", [1, 2])
def test_the_error_falls_by_the_fourth_power_of_the_ratio(measured, iterations):
    if iterations == 2:
        measured = PowerIteration(
            ratios=(0.8,), size=32, steps=20, depths=(), normalizer=SpectralNorm(iterations=2)
        ).run()
    for name, found in measured["spectra"].items():
        errors = np.array(found["errors"])
        assert errors[0] > 0.3  # u and v know nothing of the matrix
        assert (errors > -1e-12).all()  # uᵀWv is at most σ
        if name != "Gaussian":
            assert found["ratio"] == pytest.approx(float(name.removesuffix("^i")))
            assert abs(errors[-1]) < 1e-3
            clear = (errors[1:] > 1e-12) & (errors[1:] < 1e-5)
            rates = errors[1:][clear] / errors[:-1][clear]
            assert len(rates) > 2
            np.testing.assert_allclose(rates[1:], found["ratio"] ** (4 * iterations), rtol=0.05)


def test_the_product_bounds_the_gradient(measured):
    for name, networks in measured["networks"].items():
        for D in networks:
            assert 0.3 < D["gradient"] <= D["bound"] * (1 + 1e-5)
            assert D["bound"] == pytest.approx(1, abs=1e-3) if name == "spectral norm" else D["bound"] > 1.5


def test_the_largest_gradient_is_the_largest_of_all():
    class D(nn.Module):
        def forward(self, x, y=None):
            return Logits((x.flatten(1) ** 2 / 2).sum(1, keepdim=True))  # its gradient is x

    x = torch.randn(50, 2, 1, 1)
    assert largest_gradient(D(), x) == pytest.approx(x.flatten(1).norm(dim=1).max().item())
