"""Toy distributions against closed forms and scipy, and the measures of generated points against counting."""

from __future__ import annotations

import inspect
import itertools
import math
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from scipy.integrate import quad
from torch.testing import assert_close

from equipoise.core.grammar import parse
from equipoise.core.types import Batch
from equipoise.data import Density, Dirac, Distribution, Grid, Line, Mixture, Mixture1D, Ring, SwissRoll, toy
from equipoise.losses import R1
from equipoise.metrics import high_quality, kl_to_uniform, modes_covered, transport, wasserstein

UNEQUAL = Mixture1D(means=(-1.0, 0.5, 4.0), stds=(0.1, 1.0, 0.3), weights=(1.0, 5.0, 2.0))
MIXTURES = (Ring(), Ring(num=5, radius=1.0, std=0.3), Grid(), Grid(side=2, spacing=1.0, std=0.4), Mixture1D(), UNEQUAL)
DENSITIES = (*MIXTURES, SwissRoll(), SwissRoll(noise=1.0, scale=3.0))
ALL = (*DENSITIES, Line(), Line(theta=-2.0), Dirac(), Dirac(theta=3.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(values, expected, deviation: float):
    """The mean of values (N,) is the expected one, to 5 standard errors."""
    assert abs(float(values.double().mean()) - expected) <= 5 * deviation / math.sqrt(len(values))


# ---- what each distribution promises -------------------------------------------------------------------------


def test_every_distribution_is_tested_here():
    found = [getattr(toy, name) for name in toy.__all__]
    final = {c for c in found if inspect.isclass(c) and issubclass(c, Distribution) and not inspect.isabstract(c)}
    assert final == {type(distribution) for distribution in ALL}


@loop_over("distribution", ALL, ids=repr)
def test_samples(distribution):
    x = distribution.sample(100, seeded())
    assert x.shape == (100, distribution.dim)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    generator = seeded()
    assert torch.equal(x, distribution.sample(100, generator))
    again = distribution.sample(100, generator)
    assert torch.equal(x, again) == isinstance(distribution, Dirac)  # the generator moves on
    torch.manual_seed(5)
    assert torch.equal(x, distribution.sample(100, seeded()))  # torch's own generator has no part in it
    assert distribution.sample(1, seeded()).shape == (1, distribution.dim)


@loop_over("distribution", DENSITIES, ids=repr)
def test_densities(distribution):
    x = distribution.sample(20, seeded())
    p = distribution.log_density(x)
    assert p.shape == (20,)
    assert p.dtype == torch.float64
    assert_close(p[7:8], distribution.log_density(x[7:8]))
    far = torch.full((1, distribution.dim), 1e3)
    assert distribution.log_density(far).isfinite()  # its density is 0 in float64
    for bad in (x[:, 0], torch.zeros(4, 3), x[None], x[:0]):
        with pytest.raises(ValueError, match=rf"shape \(N, {distribution.dim}\), N at least 1, got shape"):
            distribution.log_density(bad)


def test_lines_and_points_have_no_density():
    for distribution in (Line(), Dirac()):
        assert isinstance(distribution, Distribution)
        assert not isinstance(distribution, Density)
        assert not hasattr(distribution, "log_density")
    assert not isinstance(SwissRoll(), Mixture)


def lattice(half: float, step: float, dim: int):
    at = torch.arange(-half, half, step, dtype=torch.float64)
    return torch.cartesian_prod(*[at] * dim).reshape(-1, dim)


@loop_over(
    ("density", "half", "step"),
    [
        (Ring(), 2.2, 0.012),
        (Ring(num=3, radius=1.0, std=0.5), 6, 0.25),
        (Grid(), 4.5, 0.03),
        (Grid(side=2, spacing=0.5, std=0.3), 4, 0.15),
        (Mixture1D(), 8, 0.1),
        (UNEQUAL, 12, 0.05),
        (SwissRoll(noise=1.0, scale=1.0), 22, 0.8),
        (SwissRoll(noise=1.0, scale=7.5), 22 / 7.5, 0.8 / 7.5),
    ],
    ids=repr,
)
def test_densities_integrate_to_one_and_have_the_moments(density, half, step):
    """Sums on a lattice: for Gaussians the error is exp(-2π² (std/step)²), below 1e-10."""
    x = lattice(half, step, density.dim)
    p = density.log_density(x).exp() * step**density.dim
    assert_close(p.sum(), double(1.0)[0], rtol=0, atol=1e-9)
    mean, square = moments(density)
    assert_close(p @ x, mean, rtol=0, atol=1e-8)
    assert_close(p @ x.square().sum(1), square, rtol=1e-8, atol=0)


def moments(distribution):
    """Mean (dim,) and E‖x‖², in closed form."""
    match distribution:
        case Ring(num, radius, std):
            assert num > 1
            return double(0, 0), double(radius**2 + 2 * std**2)[0]
        case Grid(side, spacing, std):
            return double(0, 0), double(2 * (spacing**2 * (side**2 - 1) / 12 + std**2))[0]
        case Mixture1D(means, stds, weights):
            m, s, w = np.array(means), np.array(stds), np.array(weights or np.ones(len(means)))
            return double(np.average(m, weights=w)), double(np.average(m**2 + s**2, weights=w))[0]
        case SwissRoll(noise, scale):
            low, high = 1.5 * math.pi, 4.5 * math.pi
            mean = double(
                (high * math.sin(high) + math.cos(high) - low * math.sin(low) - math.cos(low)) / (high - low),
                (math.sin(high) - high * math.cos(high) - math.sin(low) + low * math.cos(low)) / (high - low),
            )
            assert_close(mean, double(2, 2 / (3 * math.pi)))  # as its docstring says
            square = (high**3 - low**3) / (3 * (high - low)) + 2 * noise**2
            return mean / scale, double(square / scale**2)[0]
        case Line(theta):
            return double(theta, 0.5), double(theta**2 + 1 / 3)[0]
        case Dirac(theta):
            return double(theta), double(theta**2)[0]


@loop_over("distribution", ALL, ids=repr)
def test_samples_have_the_moments(distribution):
    x = distribution.sample(50_000, seeded()).double()
    mean, square = moments(distribution)
    for values, expected in (*zip(x.T, mean, strict=True), (x.square().sum(1), square)):
        close(values, float(expected), float(values.std()) + 1e-9)


@loop_over("mixture", [Ring(), Grid()], ids=repr)
def test_samples_are_gaussians_around_the_modes(mixture):
    x = mixture.sample(20_000, seeded()).double()
    mode = torch.cdist(x, mixture.modes).argmin(1)
    counts = torch.bincount(mode, minlength=len(mixture.modes)).numpy()
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    noise = ((x - mixture.modes[mode]) / mixture.std).numpy()
    for values in noise.T:
        assert scipy.stats.kstest(values, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(np.column_stack([noise, mode]).T) - np.eye(3)).max() < 0.04


@loop_over("mixture", [Mixture1D(), UNEQUAL], ids=repr)
def test_samples_on_the_line_have_the_distribution(mixture):
    x = mixture.sample(20_000, seeded())[:, 0].numpy()
    assert scipy.stats.kstest(x, lambda values: mixed_cdf(mixture, values)).pvalue > 1e-3


def mixed_cdf(mixture, values):
    each = scipy.stats.norm.cdf(values[:, None], mixture.modes[:, 0].numpy(), mixture.spreads.numpy())
    return each @ mixture.shares.numpy()


@loop_over("mixture", MIXTURES, ids=repr)
def test_the_density_of_a_mixture_is_scipys(mixture):
    x = torch.cat([mixture.sample(50, seeded()).double(), torch.randn(50, mixture.dim).double() * 3])
    parts = zip(mixture.modes.numpy(), mixture.spreads.numpy(), mixture.shares.numpy(), strict=True)
    logs = [
        np.log(w) + scipy.stats.multivariate_normal(m, s**2 * np.eye(mixture.dim)).logpdf(x.numpy())
        for m, s, w in parts
    ]
    assert_close(mixture.log_density(x).numpy(), scipy.special.logsumexp(logs, axis=0), rtol=1e-12, atol=1e-11)


def test_the_density_is_differentiable():
    """Of one Gaussian the gradient is (m - x)/s²."""
    x = torch.randn(9, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(Mixture1D(means=(1.0,), stds=(0.5,)).log_density(x).sum(), x)
    assert_close(gradient, (1 - x.detach()) / 0.25)


# ---- modes ---------------------------------------------------------------------------------------------------


def test_modes_of_the_ring():
    ring = Ring()
    assert torch.cdist(ring.modes, ring.modes).add(10 * torch.eye(8)).min() > 1.5  # eight, not seven and one twice
    assert_close(ring.modes.norm(dim=1), torch.full((8,), 2.0).double())
    assert_close((ring.modes - ring.modes.roll(1, 0)).norm(dim=1), torch.full((8,), 4 * math.sin(math.pi / 8)).double())
    assert_close(ring.modes[[0, 2]], double([2, 0], [0, 2]), rtol=0, atol=1e-15)
    assert Ring(num=1).modes.tolist() == [[2.0, 0.0]]


def test_modes_of_the_grid():
    modes = [tuple(mode) for mode in Grid().modes.tolist()]
    assert modes == sorted(itertools.product(range(-4, 5, 2), repeat=2), key=lambda p: (p[1], p[0]))
    assert Grid(side=2, spacing=3.0).modes.tolist() == [[-1.5, -1.5], [1.5, -1.5], [-1.5, 1.5], [1.5, 1.5]]


def test_shares_are_in_proportion():
    assert_close(UNEQUAL.shares, double(1 / 8, 5 / 8, 2 / 8))
    assert_close(Mixture1D(means=(0.0, 1.0, 2.0), stds=(1.0,) * 3).shares, torch.full((3,), 1 / 3).double())


@loop_over("mixture", [m for m in MIXTURES if m is not UNEQUAL], ids=repr)
def test_points_belong_to_the_nearest_mode(mixture):
    order = torch.randperm(len(mixture.modes))
    offset = torch.zeros(mixture.dim)
    offset[-1] = 0.1 * mixture.std if hasattr(mixture, "std") else 0.1
    assigned = mixture.assign(mixture.modes[order] + offset)
    assert assigned.dtype == torch.int64
    assert torch.equal(assigned, order)


@loop_over("mixture", [Ring(), Grid()])
def test_points_farther_than_three_standard_deviations_belong_to_none(mixture):
    """By their distance, not by each coordinate."""
    mode, std = mixture.modes[3], mixture.std
    angles = torch.linspace(0, 6, 20).double()
    around = torch.stack([angles.cos(), angles.sin()], 1)
    assert (mixture.assign(mode + 2.99 * std * around) == 3).all()
    assert (mixture.assign(mode + 3.01 * std * around) == -1).all()
    assert (mixture.assign(mode + 3.01 * std * around, within=3.1) == 3).all()
    assert (mixture.assign(mode + 1.01 * std * around, within=1.0) == -1).all()
    corner = mode + 2.5 * std
    assert mixture.assign(corner[None]).item() == -1
    assert mixture.assign(mixture.modes.mean(0)[None] + 0.5).item() == -1
    assert mixture.assign(torch.tensor([[float("nan"), 0.0], [float("inf"), 0.0]])).tolist() == [-1, -1]


def test_the_nearest_mode_is_counted_in_its_standard_deviations():
    """0.1 from a mode of 0.01 and 0.9 from one of 1: the latter made it."""
    mixture = Mixture1D(means=(0.0, 1.0), stds=(0.01, 1.0))
    assert mixture.assign(torch.tensor([[0.1], [0.02], [3.9], [4.1], [-2.1]])).tolist() == [1, 1, 1, -1, -1]
    assert mixture.assign(torch.tensor([[0.005]])).item() == 0


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(N, 2\), N at least 1, got shape \(4, 1\)"):
        Ring().assign(torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"shape \(N, 2\), N at least 1, got shape \(0, 2\)"):
        high_quality(Ring(), torch.zeros(0, 2))


# ---- the Swiss roll --------------------------------------------------------------------------------------------


@loop_over("roll", [SwissRoll(), SwissRoll(noise=2.0, scale=3.0), SwissRoll(noise=0.05, scale=1.0)])
def test_its_density_is_the_integral(roll):
    """∫ N(x; t (cos t, sin t)/scale, (noise/scale)² I) dt / 3π, by scipy."""
    low, high = 1.5 * math.pi, 4.5 * math.pi
    std = roll.noise / roll.scale

    def integrand(t, a, b):
        distance = math.hypot(a - t * math.cos(t) / roll.scale, b - t * math.sin(t) / roll.scale)
        return math.exp(-((distance / std) ** 2) / 2) / (2 * math.pi * std**2) / (high - low)

    ends = double([0, -low], [0, high], [0.3, high + 0.2]) / roll.scale  # half of the noise is beyond the spiral's end
    pieces = np.linspace(low, high, 300)
    x = torch.cat([roll.sample(4, seeded()).double(), ends])
    for point, found in zip(x.tolist(), roll.log_density(x).tolist(), strict=True):
        parts = (
            quad(integrand, a, b, args=tuple(point), epsabs=0, epsrel=1e-10) for a, b in itertools.pairwise(pieces)
        )
        assert found == pytest.approx(math.log(sum(value for value, _ in parts)), abs=1e-9)


def test_its_density_is_its_samples():
    """Shares of samples in squares, and the density summed over them."""
    roll = SwissRoll(noise=1.0, scale=1.0)
    x = roll.sample(40_000, seeded()).numpy()
    counts = np.histogram2d(x[:, 0], x[:, 1], bins=11, range=[[-22, 22]] * 2)[0]
    inside = lattice(22, 0.8, 2)[:, None] + 0.4  # 55 x 55, five to a side of each square
    p = (roll.log_density(inside[:, 0]).exp() * 0.64).reshape(11, 5, 11, 5).sum((1, 3)).numpy()
    likely = p > 1e-3
    assert likely.sum() > 40
    z = (counts - 40_000 * p) / np.sqrt(40_000 * p)
    assert np.abs(z[likely]).max() < 5
    assert np.square(z[likely]).mean() < 2


def test_many_points_are_as_few():
    """They are taken in parts."""
    roll = SwissRoll()
    x = roll.sample(2000, seeded())
    whole = roll.log_density(x)
    assert_close(whole[[0, 1471, 1472, 1999]], roll.log_density(x[[0, 1471, 1472, 1999]]))
    assert whole.shape == (2000,)


# ---- lines and points ------------------------------------------------------------------------------------------


def test_parallel_lines_are_theta_apart():
    for theta in (-3.0, 0.0, 0.25):
        line = Line(theta=theta).sample(300, seeded())
        assert line[:, 0].tolist() == [theta] * 300
        assert scipy.stats.kstest(line[:, 1].numpy(), "uniform").pvalue > 1e-3
        assert wasserstein(Line().sample(300, seeded()), line) == pytest.approx(abs(theta), abs=1e-12)
    other = Line(theta=1.0).sample(300, seeded(1))  # other points of the line: W is |theta| up to their differences
    assert wasserstein(Line().sample(300, seeded()), other) == pytest.approx(1, abs=0.01)


def test_diracs_are_theta_apart():
    assert Dirac(theta=-1.5).sample(3, seeded()).tolist() == [[-1.5]] * 3
    assert wasserstein(Dirac().sample(3, seeded()), Dirac(theta=-1.5).sample(3, seeded())) == 1.5


# ---- measures of generated points --------------------------------------------------------------------------------


@pytest.mark.parametrize("mixture", [Ring(), Grid(), Mixture1D()])
def test_true_samples(mixture):
    x = mixture.sample(20_000, seeded())
    expected = scipy.stats.chi(mixture.dim).cdf(3)
    close((mixture.assign(x) >= 0).float(), expected, math.sqrt(expected * (1 - expected)))
    assert high_quality(mixture, x) == (mixture.assign(x) >= 0).double().mean().item()
    assert high_quality(mixture, x, within=1.0) == pytest.approx(scipy.stats.chi(mixture.dim).cdf(1), abs=0.02)
    assert modes_covered(mixture, x) == len(mixture.modes)
    assert mixture.counts(x).tolist() == [int((mixture.assign(x) == k).sum()) for k in range(len(mixture.modes))]


def test_kl_of_true_samples_is_that_of_counts():
    """2 N KL is asymptotically chi-squared with M - 1 degrees of freedom, so its mean is M - 1."""
    grid, generator = Grid(), seeded()
    values = torch.tensor([2 * 2000 * kl_to_uniform(grid, grid.sample(2000, generator)) for _ in range(100)])
    close(values, 24, math.sqrt(2 * 24))


def test_collapse_on_the_ring():
    """Half of the modes, each with as many; points beside the ring count for nothing."""
    ring = Ring()
    bad = torch.zeros(5, 2)
    half = torch.cat([ring.modes[::2].repeat(3, 1).float(), bad])
    assert modes_covered(ring, half) == 4
    assert high_quality(ring, half) == 12 / 17
    assert kl_to_uniform(ring, half) == pytest.approx(math.log(2))
    one = ring.modes[5:6].float()
    assert (modes_covered(ring, one), high_quality(ring, one)) == (1, 1.0)
    assert kl_to_uniform(ring, one) == pytest.approx(math.log(8))
    assert (modes_covered(ring, bad), high_quality(ring, bad)) == (0, 0.0)
    assert kl_to_uniform(ring, bad) == pytest.approx(math.log(8))
    assert kl_to_uniform(ring, ring.modes) == pytest.approx(0, abs=1e-15)
    assert high_quality(ring, torch.cat([one, torch.full((3, 2), math.nan)])) == 0.25
    wide = ring.modes + double(0.07, 0)  # 3.5 standard deviations
    assert (modes_covered(ring, wide), modes_covered(ring, wide, within=4.0)) == (0, 8)
    assert kl_to_uniform(ring, wide[:2], within=4.0) == pytest.approx(math.log(4))


@given(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))
def test_kl_is_scipys(counts):
    grid = Grid(side=2)
    x = grid.modes.repeat_interleave(torch.tensor(counts), dim=0)
    assert kl_to_uniform(grid, x) == pytest.approx(scipy.stats.entropy(counts, [1] * 4), abs=1e-12)
    assert modes_covered(grid, x) == np.count_nonzero(counts)


# ---- Wasserstein ---------------------------------------------------------------------------------------------------


@loop_over("dim", [1, 2, 3])
@loop_over("num", [1, 2, 6])
def test_is_the_best_of_all_pairings(dim, num):
    x, y = torch.randn(num, dim), torch.randn(num, dim)
    costs = [(x.double() - y[list(order)].double()).norm(dim=1).mean() for order in itertools.permutations(range(num))]
    assert wasserstein(x, y) == pytest.approx(float(min(costs)), rel=1e-12)
    partner = transport(x, y)
    assert partner.dtype == torch.int64
    assert sorted(partner.tolist()) == list(range(num))
    assert float((x.double() - y[partner].double()).norm(dim=1).mean()) == pytest.approx(wasserstein(x, y), rel=1e-12)


@loop_over("dim", [1, 2])
def test_of_shifted_points_is_the_shift(dim):
    """In whatever order; of close points far from 0 too, where ‖x‖² - 2 <x, y> + ‖y‖² has no digits left."""
    x = torch.randn(60, dim).double()
    shift = torch.full((dim,), 0.7).double()
    order = torch.randperm(60)
    assert wasserstein(x, (x + shift)[order]) == pytest.approx(float(shift.norm()), rel=1e-12)
    assert (transport(x, (x + 1e-3 * shift)[order]) == order.argsort()).all()
    close_by = 1e3 + 1e-6 * x
    assert wasserstein(close_by, close_by[order]) == 0
    assert wasserstein(x, x[order]) == 0
    y = torch.randn(60, dim).double()
    assert wasserstein(x, y) == pytest.approx(wasserstein(y, x), rel=1e-12)
    assert wasserstein(x + 3, y + 3) == pytest.approx(wasserstein(x, y), rel=1e-12)
    assert wasserstein(2 * x, 2 * y) == pytest.approx(2 * wasserstein(x, y), rel=1e-12)


def test_on_the_line_it_is_scipys_and_that_of_the_plane():
    x, y = torch.randn(80, 1), torch.randn(80, 1) * 2 + 1
    assert wasserstein(x, y) == pytest.approx(scipy.stats.wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy()))
    flat = [torch.cat([points, torch.zeros(80, 1)], dim=1) for points in (x, y)]
    assert wasserstein(*flat) == pytest.approx(wasserstein(x, y), rel=1e-12)


def test_a_1_lipschitz_function_never_tells_more():
    """Kantorovich-Rubinstein: E f(x) - E f(y) <= W_1, here for f = distance to a point."""
    x, y = Grid().sample(200, seeded()), Ring().sample(200, seeded())
    anchors = torch.randn(50, 2) * 4
    told = torch.cdist(x, anchors).mean(0) - torch.cdist(y, anchors).mean(0)
    assert 0.5 * wasserstein(x, y) < told.abs().max() <= wasserstein(x, y) + 1e-6


def test_points_without_a_distance_are_refused():
    x = torch.zeros(4, 2)
    for other in (torch.zeros(3, 2), torch.zeros(4, 1), torch.zeros(4)):
        with pytest.raises(ValueError, match=r"expected two sets of points of equal shape \(N, d\), got \(4, 2\)"):
            wasserstein(x, other)
    with pytest.raises(ValueError, match="expected two sets of points"):
        wasserstein(x[:0], x[:0])
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="1 of 8 points hold NaN or Inf"):
            wasserstein(x, torch.tensor([[0.0, bad], *[[0.0, 0.0]] * 3]))


def test_only_the_plane_needs_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert wasserstein(torch.zeros(2, 1), torch.ones(2, 1)) == 1
    with pytest.raises(ValueError, match=r"need scipy: pip install -c constraints.txt '\.\[lab\]'"):
        wasserstein(torch.zeros(2, 2), torch.ones(2, 2))


def test_generated_points_may_have_a_graph():
    x = Ring().sample(10, seeded()).requires_grad_()
    assert not Ring().assign(x).requires_grad
    assert isinstance(wasserstein(x, x.detach() + 1), float)


# ---- as values of the library --------------------------------------------------------------------------------------


def test_are_batches():
    """R1 of the critic <w, x> is ‖w‖² on each."""
    batch = Batch(Ring().sample(16, seeded()))
    w = torch.tensor([3.0, 4.0])
    assert_close(R1()(lambda x, y: x @ w[:, None], batch, batch), torch.full((16,), 25.0))


def test_as_components():
    assert repr(Ring()) == "Ring(num=8, radius=2.0, std=0.02)"
    assert Grid(std=0.1) == Grid(std=0.1) != Grid()
    known = {"Mixture1D": Mixture1D}
    parsed = parse("Mixture1D(means=[0, 3, 1], stds=[1, 2, 0.5], weights=[1, 1, 2])", known)
    assert parsed == Mixture1D(means=(0.0, 3.0, 1.0), stds=(1.0, 2.0, 0.5), weights=(1.0, 1.0, 2.0))
    assert parse(repr(parsed), known) == parsed
    for kind in (Distribution, Density, Mixture):
        with pytest.raises(TypeError, match="abstract"):
            kind()


@loop_over(
    ("make", "match"),
    [
        (lambda: Ring(std=0.0), "std"),
        (lambda: Ring(num=0), "num"),
        (lambda: Ring(radius=math.inf), "radius"),
        (lambda: Grid(side=0), "side"),
        (lambda: Grid(spacing=-1.0), "spacing"),
        (lambda: SwissRoll(noise=0.0), "noise"),
        (lambda: SwissRoll(scale=0.0), "scale"),
        (lambda: Line(theta=math.nan), "theta"),
        (lambda: Dirac(theta=math.inf), "theta"),
        (lambda: Mixture1D(means=(), stds=()), "means"),
        (lambda: Mixture1D(stds=(1.0, 0.0)), "stds"),
        (lambda: Mixture1D(weights=(1.0, -1.0)), "weights"),
        (lambda: Mixture1D(means=(1.0,)), "equal numbers of means, stds and weights, got 1, 2: give one of each per"),
        (lambda: Mixture1D(weights=(1.0,)), "equal numbers of means, stds and weights, got 2, 2, 1"),
    ],
)
def test_bad_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
