"""The directions of last layers: SAN's is the best one on fixed features, a GAN's is not (Takida et al. 2024)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from loops import loop_over
from torch.testing import assert_close

from equipoise.core.types import RunError
from equipoise.lab.points.gan import PointGAN
from equipoise.lab.theory.san_direction import (
    SANDirection,
    angle,
    best_direction,
    histogram,
    in_plane,
    last_vector,
    sampling_error,
    train_last_layer,
)
from equipoise.losses import (
    R2,
    Hinge,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    SoftLeastSquares,
    Wasserstein,
    direction_loss,
)
from equipoise.nn import split

STDS = torch.linspace(0.7, 3, 10)
"""Of features that do not vary alike in all directions."""


@pytest.fixture(scope="module")
def features():
    """Real and generated, (2000, 10) each, means (±0.5, ..., ±0.5) and covariance diag(STDS²)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 2000, 10, generator=generator) * STDS
    return noise[0] + 0.5, noise[1] - 0.5


def degrees(a, b):
    """By the arc cosine, in float64."""
    a, b = a.double().numpy(), b.double().numpy()
    return np.degrees(np.arccos(a @ b / np.sqrt(a @ a * (b @ b))))


def learned(loss, san, real, fake, **settings):
    *_, w = train_last_layer(loss, san, real, fake, **{"steps": 250, "lr": 0.03} | settings)
    return w


# ---- on fixed features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_san_finds_the_difference_of_the_means_from_anywhere(seed, features):
    real, fake = features
    torch.manual_seed(seed)
    first, *_, last = train_last_layer(Hinge(), True, real, fake, steps=250, lr=0.03)
    difference = real.mean(0) - fake.mean(0)
    assert angle(first, difference) > 30
    assert angle(last, difference) < 0.5  # and not 180


def test_a_gan_learns_to_classify_instead(features):
    real, fake = features
    difference = real.mean(0) - fake.mean(0)
    for loss in (Hinge(), NonSaturating()):
        assert angle(learned(loss, False, real, fake), difference) > 30
    # the posterior of two Gaussians of one covariance is logistic, its vector the inverse covariance times 1
    logistic = learned(NonSaturating(), False, real, fake)
    assert_close(logistic * STDS, 1 / STDS, rtol=0, atol=0.2)
    assert angle(logistic * STDS, 1 / STDS) < 6


def test_features_that_vary_alike_in_all_directions_have_one_direction_for_both(features):
    real, fake = ((h - h.mean(0)) / STDS + h.mean(0) for h in features)
    difference = real.mean(0) - fake.mean(0)
    for san in (False, True):
        assert angle(learned(Hinge(), san, real, fake), difference) < 6


@pytest.mark.parametrize("loss", [NonSaturating(), SoftLeastSquares(), Saturating()], ids=repr)
def test_a_san_of_another_loss_finds_its_own_best(loss, features):
    real, fake = features[0].exp().clamp_max(4), features[1]  # of different shapes, so that the weights matter
    w = learned(loss, True, real, fake)
    assert angle(w, best_direction(loss, w, real, fake)) < 0.5
    assert angle(w, real.mean(0) - fake.mean(0)) > 2


@loop_over("loss", [Hinge(), Wasserstein(), NonSaturating(), SoftLeastSquares()], ids=repr)
def test_the_best_direction_is_where_the_direction_loss_pulls(loss, features):
    real, fake = (h.double() for h in features)
    w = torch.randn(10, dtype=torch.float64, requires_grad=True)
    best = best_direction(loss, w.detach(), real, fake)
    _, direction = split(w)
    direction_loss(loss, real @ direction, fake @ direction).mean().backward()
    omega = w.detach() / w.detach().norm()
    assert_close(w.grad, -(best - (best @ omega) * omega))  # the part that turns w
    if isinstance(loss, Hinge | Wasserstein):
        assert_close(best, real.mean(0) - fake.mean(0))


# ---- over training -----------------------------------------------------------------------------------------


def test_the_measured_direction_is_that_of_d():
    experiment = SANDirection(iterations=4, samples=200, width=16)
    gan = PointGAN(experiment.config(san=True, seed=1))
    moments = list(experiment.follow(gan, [0, 4]))
    assert [moment for moment, *_ in moments] == [0, 4]
    assert gan.nimg == 4 * gan.cfg.d_steps * gan.cfg.batch_size
    _, w, real, fake = moments[-1]
    assert_close(w, last_vector(gan.gan.D))
    x = gan.distribution.modes.float()
    assert_close(gan.gan.D(x[:, :, None, None]).features @ w, gan.value(x))
    assert real.shape == fake.shape == (200, 16)
    assert not torch.equal(w, moments[0][1])  # a copy, not the weights themselves


def test_what_it_finds():
    experiment = SANDirection(iterations=30, moments=4, seeds=2, samples=300, steps=200, lr=0.05, width=16)
    numbers = experiment.run()
    assert numbers["iterations"] == [0, 10, 20, 30]
    assert numbers["middle"] == 20
    gan, san = numbers["runs"]["GAN"], numbers["runs"]["SAN"]
    for seed in range(2):
        assert gan[seed]["angle"][0] == san[seed]["angle"][0]  # of the same networks
        assert gan[seed]["angle"][1:] != san[seed]["angle"][1:]
    assert gan[0] != gan[1]
    alone = numbers["alone"]
    assert alone["SAN, hinge"]["angle"][-1] < 1 < alone["GAN, hinge"]["angle"][-1]
    assert alone["SAN, hinge"]["angle"] == alone["SAN, hinge"]["own"]
    assert alone["SAN, non-saturating"]["own"][-1] < 1
    assert {found["angle"][0] for found in alone.values()} == {alone["SAN, hinge"]["angle"][0]}  # one start
    assert len(numbers["frames"]["SAN"]) == 4
    rows = {row[0]: row[1:] for row in experiment.table(numbers).rows}
    assert float(rows["SAN, hinge, features fixed"][0]) < 1
    assert rows["SAN, hinge, features fixed"][1] == "100%"


def test_a_loss_that_trains_no_san_is_refused_and_penalties_are_settings():
    with pytest.raises(ValueError, match="RelativisticPairing"):
        SANDirection(loss=RelativisticPairing())
    assert SANDirection(penalties=(R2(gamma=2.0),)).config(san=True, seed=3).terms == (R2(gamma=2.0),)


def test_training_that_fails_says_so():
    experiment = SANDirection(iterations=2, samples=200, width=8)
    gan = PointGAN(experiment.config(san=False, seed=0))
    with torch.no_grad():
        next(gan.gan.D.body.parameters()).fill_(math.nan)
    with pytest.raises(RunError, match="not finite after 0 iterations"):
        next(experiment.follow(gan, [0, 2]))


# ---- measures ----------------------------------------------------------------------------------------------


def test_angles():
    a, b = torch.randn(2, 7)
    assert angle(a, b) == pytest.approx(degrees(a, b), abs=1e-4)
    assert angle(a, 3 * a) == pytest.approx(0, abs=1e-5)
    assert angle(a, -2 * a) == pytest.approx(180, abs=1e-5)
    assert angle(a, 0 * a) == pytest.approx(90)
    small = torch.tensor([1.0, 1e-6])
    assert angle(torch.tensor([1.0, 0.0]), small) == pytest.approx(math.degrees(1e-6), rel=1e-4)  # acos gives 0


def test_the_sampling_error_is_the_angle_to_the_direction_of_the_means_themselves(features):
    true = torch.ones(10)
    errors, estimates = [], []
    for _ in range(60):
        real, fake = torch.randn(2, 400, 10) * STDS + torch.tensor([[[0.5]], [[-0.5]]])
        errors.append(angle(real.mean(0) - fake.mean(0), true))
        estimates.append(sampling_error(real, fake))
    assert np.mean(estimates) == pytest.approx(np.mean(errors), rel=0.15)


def test_the_plane_holds_both_directions(features):
    real, fake = features
    w, best = torch.randn(10), real.mean(0) - fake.mean(0)
    points = in_plane(w, best, real, fake)
    right, up = points[0].mean(0) - points[1].mean(0)
    assert math.degrees(math.atan2(up, right)) == pytest.approx(degrees(w, best), abs=0.1)
    assert points.std().item() == pytest.approx(1, abs=1e-3)
    assert_close(points.mean((0, 1)), torch.zeros(2, dtype=torch.float64), atol=1e-3, rtol=0)
    # distances in it are those of the features, along w
    along = (real - fake) @ w / w.norm()
    shown = points[0, :, 0] - points[1, :, 0]
    assert_close(shown, along * (shown.norm() / along.norm()), atol=2e-3, rtol=0, check_dtype=False)


def test_histograms_are_densities_of_unit_projections(features):
    real, fake = features
    best = real.mean(0) - fake.mean(0)
    found = histogram(7 * best, real, fake)
    assert found["apart"] == pytest.approx(best.norm().item(), rel=1e-4)
    width = found["edges"][1] - found["edges"][0]
    middles = (found["edges"][1:] + found["edges"][:-1]) / 2
    for key, sign in (("real", 1), ("fake", -1)):
        assert (found[key] * width).sum().item() == pytest.approx(1, abs=1e-3)
        assert (found[key] * width * middles).sum().item() == pytest.approx(sign * found["apart"] / 2, abs=0.05)
