"""The critic's gradient on transport lines, and the surfaces that show it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy.spatial.distance import cdist
from torch.testing import assert_close

from equipoise.core.plots import figure
from equipoise.data import Dirac, Mixture1D, Ring
from equipoise.lab.points.surface import draw_surface, gradient, surface
from equipoise.lab.theory.unit_gradient import UnitGradient, compare


@pytest.fixture(scope="module")
def numbers():
    return UnitGradient(points=200, steps=250).run()


# ---- the experiment --------------------------------------------------------------------------------------


def test_partners_are_those_of_optimal_transport(numbers):
    x, generated, partners = (numbers[key].double().numpy() for key in ("x", "generated", "partners"))
    assert sorted(map(tuple, partners)) == sorted(map(tuple, x))
    costs = cdist(generated, x)
    assert np.linalg.norm(partners - generated, axis=1).mean() == pytest.approx(numbers["exact"], abs=1e-6)
    assert numbers["exact"] < costs.mean() - 0.2
    swapped = np.linalg.norm(partners[::-1] - generated, axis=1).mean()
    assert swapped > numbers["exact"]


@loop_over(("penalty", "median", "share"), [("two-sided", 0.95, 0.5), ("one-sided", 0.99, 0.9)])
def test_on_transport_lines_it_is_1_long_and_points_to_the_data(numbers, penalty, median, share):
    found = numbers["critics"][penalty]["gradients"]
    lines, others = found["transport lines"], found["random interpolates"]
    assert lines["norms"].median().item() == pytest.approx(1 + numbers["exact"] / 20, abs=0.04)
    assert lines["norms"].std() < 0.08
    assert lines["cosines"].median() > median
    assert (lines["cosines"] > 0.95).float().mean() > share
    assert others["cosines"].mean() < 0.8 < 0.9 < lines["cosines"].mean()
    assert others["cosines"].min() < 0  # away from the point that the line goes to


def test_a_penalty_holds_the_length_down_elsewhere_too(numbers):
    for critic in numbers["critics"].values():
        for found in critic["gradients"].values():
            assert found["norms"].quantile(0.98) < 1.25
        assert critic["gradients"]["anywhere"]["norms"].mean() < critic["gradients"]["transport lines"]["norms"].mean()


def test_only_the_two_sided_penalty_asks_for_1_at_random_interpolates(numbers):
    two, one = (critic["gradients"]["random interpolates"]["norms"] for critic in numbers["critics"].values())
    assert (one < 0.7).sum() > (two < 0.7).sum()


def test_the_estimate_is_near_the_distance(numbers):
    for critic in numbers["critics"].values():
        assert critic["estimate"] == pytest.approx(numbers["exact"], rel=0.1)


def test_frames_are_of_the_critic_under_way(numbers):
    for critic in numbers["critics"].values():
        assert len(critic["frames"]) == len(numbers["step"]) == 21
        first, last = critic["frames"][0], critic["frames"][-1]
        assert (first["arrows"]["gradients"].norm(dim=1) < 0.5).all()  # initial weights are small
        assert last["arrows"]["gradients"].norm(dim=1).median() > 0.7
    assert numbers["step"][0] == 0
    assert numbers["step"][-1] == 250


def test_the_table_has_a_row_for_each_critic_and_place(numbers):
    rows = UnitGradient().table(numbers).rows
    assert [row[0] for row in rows[:3]] == [
        f"two-sided penalty, {place}" for place in ("transport lines", "random interpolates", "anywhere")
    ]
    found = numbers["critics"]["one-sided"]["gradients"]["transport lines"]
    length, deviation, cosine, above = rows[3][1:]
    assert float(length) == pytest.approx(found["norms"].numpy().mean(), abs=1e-3)
    assert float(deviation) == pytest.approx(found["norms"].numpy().std(ddof=1), abs=1e-3)
    assert float(cosine) == pytest.approx(found["cosines"].numpy().mean(), abs=1e-3)
    assert above == f"{100 * np.mean(found['cosines'].numpy() > 0.95):.0f}%"
    assert rows[5][3:] == ["", ""]  # anywhere, there is no line


def test_distributions_of_the_plane_only():
    with pytest.raises(ValueError, match=r"in the plane, \(N, 2\), got Mixture1D\(.*\): \(N, 1\)"):
        UnitGradient(real=Mixture1D())
    with pytest.raises(ValueError, match=r"got Dirac\(theta=0.0\)"):
        UnitGradient(fake=Dirac())
    assert UnitGradient(real=Ring()).real == Ring()


def test_lengths_and_cosines():
    at = torch.randn(30, 2)
    angles = torch.rand(30) * 3
    along = torch.stack([angles.cos(), angles.sin()], dim=1) * 7
    found = compare(lambda x: 3 * x[:, 0], at, along)
    assert_close(found["norms"], torch.full((30,), 3.0))
    assert_close(found["cosines"], angles.cos())
    assert set(compare(lambda x: x[:, 0], at, None)) == {"norms"}


# ---- surfaces --------------------------------------------------------------------------------------------


def value(x):
    return x[:, 0] ** 2 * x[:, 1] + x[:, 1]


def test_a_surface_has_rows_from_the_bottom_and_exact_gradients():
    found = surface(value, extent=(-1, 2, 3, 7), size=5)
    for row, y in enumerate(np.linspace(3, 7, 5)):
        for column, x in enumerate(np.linspace(-1, 2, 5)):
            assert found["values"][row, column].item() == pytest.approx(x**2 * y + y, rel=1e-5)
    points, gradients = found["arrows"]["points"], found["arrows"]["gradients"]
    x, y = points.T
    assert_close(gradients, torch.stack([2 * x * y, x**2 + 1], dim=1))
    assert points.min(0).values.tolist() == pytest.approx([-1 + 3 / 32, 3 + 4 / 32])  # inside
    assert points.max(0).values.tolist() == pytest.approx([2 - 3 / 32, 7 - 4 / 32])
    assert found["extent"] == [-1, 2, 3, 7]
    assert not found["values"].requires_grad
    assert not gradients.requires_grad


def test_a_gradient_is_that_of_each_point_alone():
    points = torch.randn(6, 2)
    assert_close(gradient(value, points), torch.stack([gradient(value, point[None])[0] for point in points]))
    assert not points.requires_grad


def test_arrows_point_uphill_and_the_steepest_are_cut():
    def ramp(x):
        return torch.where(x[:, 0] > 0.9, 100 * x[:, 0], -x[:, 1] * torch.where(x[:, 0] < 0, 0.5, 1.0))

    _, (ax,) = figure()
    found = surface(ramp, extent=(-1, 1, -1, 1))
    draw_surface(ax, found)
    (arrows,) = [item for item in ax.collections if hasattr(item, "U")]
    x, y = arrows.U / arrows.scale, arrows.V / arrows.scale  # in the unit of the axes
    at = found["arrows"]["points"][:, 0].numpy()
    longest = 0.9 * 2 / 16
    for here, expected in (
        (at < 0, (0, -longest / 2)),
        ((at > 0) & (at < 0.9), (0, -longest)),
        (at > 0.9, (longest, 0)),
    ):
        assert here.sum() >= 16
        np.testing.assert_allclose(x[here], expected[0], atol=1e-6)
        np.testing.assert_allclose(y[here], expected[1], atol=1e-6)
    assert ax.get_xlim() == ax.get_ylim() == (-1, 1)


def test_a_constant_is_drawn_without_levels_and_arrows():
    _, (ax,) = figure()
    draw_surface(ax, surface(lambda x: 0 * x.sum(1), extent=(0, 1, 0, 2)))
    assert not ax.collections
    assert ax.get_ylim() == (0, 2)
