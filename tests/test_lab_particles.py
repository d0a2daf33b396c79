"""Points that D alone moves: the gradient they follow, and what becomes of them under each loss."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from equipoise.data import Dirac, Line, Ring, SwissRoll
from equipoise.lab.points.gan import PointGAN
from equipoise.lab.theory.particles import GAMES, Particles, positions
from equipoise.losses import GradientPenalty, Hinge, LeastSquares, NonSaturating, Saturating, Wasserstein

PENALTY = (GradientPenalty(),)


@loop_over(
    ("loss", "push"),
    [
        (Saturating(), torch.sigmoid),
        (NonSaturating(), lambda t: torch.sigmoid(-t)),
        (Wasserstein(), torch.ones_like),
        (Hinge(), torch.ones_like),
        (LeastSquares(), lambda t: 1 - t),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_point_goes_up_d_as_fast_as_its_own_logit_says(loss, push):
    experiment = Particles(num=7, speed=0.3, start=1.0, data=SwissRoll())
    gan = PointGAN(experiment.config(loss, PENALTY))
    gan.iterate()
    before = positions(gan).requires_grad_(True)
    gan.iterate()  # D first, so the points went through the D that there is now
    t = gan.value(before)
    (slope,) = torch.autograd.grad(t.sum(), before)
    moved = (positions(gan) - before).detach()
    assert_close(moved, 0.3 * (push(t)[:, None] * slope).detach(), rtol=1e-4, atol=1e-6)
    assert moved.norm(dim=1).min() > 0


def test_points_start_around_0_and_d_makes_its_steps():
    experiment = Particles(num=500, start=0.2, d_steps=4)
    gan = PointGAN(experiment.config(Hinge(), ()))
    x = positions(gan)
    assert x.std().item() == pytest.approx(0.2, rel=0.1)
    assert x.mean().item() == pytest.approx(0, abs=0.03)
    gan.iterate()
    assert gan.nimg == 4 * 500


@pytest.fixture(scope="module")
def numbers():
    return Particles(num=100, steps=80, frames=9).run()


def test_a_sure_d_leaves_the_points_of_the_saturating_loss_where_they_are(numbers):
    saturating = numbers["games"]["saturating"]
    assert saturating["speed"][-1] < 1e-4
    assert saturating["w"][-1] > 0.95 * saturating["w"][0]
    assert saturating["w"][0] == pytest.approx(2, abs=0.2)  # from the middle of a ring of that radius
    for name, found in numbers["games"].items():
        if name != "saturating":
            assert found["w"][-1] < 0.7 * found["w"][0], name
            assert max(found["speed"][1:]) > 0.3


def test_under_r1_they_arrive_and_come_to_rest_and_a_critic_of_slope_1_keeps_them_moving(numbers):
    rest, restless = (numbers["games"][name] for name in ("non-saturating, R1", "Wasserstein, gradient penalty"))
    for found in (rest, restless):
        assert found["w"][-1] < numbers["floor"] + 0.35
    assert rest["speed"][-1] < 0.2
    assert restless["speed"][-1] > 0.4


def test_distances_are_those_of_the_best_pairing(numbers):
    real = numbers["real"].double().numpy()
    found = numbers["games"]["non-saturating"]
    for points, w in zip(found["points"], found["w"], strict=True):
        costs = cdist(points.numpy(), real)
        assert w == pytest.approx(costs[linear_sum_assignment(costs)].mean(), abs=2e-3)
    assert numbers["steps"][0] == 0
    assert numbers["steps"][-1] == 80
    assert len(found["points"]) == len(found["speed"]) == len(numbers["steps"])
    assert found["speed"][0] == 0


def test_d_is_shown_the_right_way_round():
    found = Particles(data=Line(theta=3.0), num=50, steps=10, frames=2).run()["games"]
    for name in GAMES:
        value = found[name]["value"][-1]  # rows of one y
        assert value[:, -1].mean() > value[:, 0].mean() + 0.2, name
        assert (value.min(), value.max()) == (0, 1)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"Dirac\(theta=0.0\) has dim 1: take Ring"):
        Particles(data=Dirac())
    assert Particles(data=Ring(num=3)).data.num == 3
