"""The critic's estimate of the earth mover's distance: as far from it as theory says, above it never if 1-Lipschitz."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.types import Logits
from equipoise.lab.theory.duality import PAIRS, Duality, dual
from equipoise.metrics import wasserstein
from equipoise.weights import SpectralNorm

CHOSEN = ("Gaussian, moved 1", "ring, much smaller")


@pytest.fixture(scope="module")
def pairs():
    return Duality(pairs=CHOSEN, points=300, steps=150, clips=(0.1, 0.01)).run()["pairs"]


@loop_over("name", [name for name in PAIRS if PAIRS[name][2] is not None])
def test_the_known_distances_are_those_of_many_points(name):
    real, fake, known = PAIRS[name]
    generator = torch.Generator().manual_seed(3)
    assert wasserstein(real.sample(500, generator), fake.sample(500, generator)) == pytest.approx(known, rel=0.08)


@pytest.mark.parametrize("control", ["gradient penalty", "one-sided penalty"])
def test_a_penalised_critic_is_within_10_percent(pairs, control):
    for name, pair in pairs.items():
        first, *_, last = pair["estimates"][control]
        assert abs(last - pair["exact"]) / pair["exact"] < 0.1, name
        assert abs(first) < pair["exact"] / 3  # it was trained to


def test_the_excess_is_what_the_strength_allows():
    strength = 2.5
    found = Duality(pairs=("Gaussian, moved 1",), points=300, steps=120, strength=strength, clips=()).run()
    pair = found["pairs"]["Gaussian, moved 1"]
    slopes = np.linspace(0, 3, 30001)
    best = slopes[np.argmax(slopes * pair["exact"] - strength * (slopes - 1) ** 2)]
    for control in ("gradient penalty", "one-sided penalty"):
        assert pair["estimates"][control][-1] == pytest.approx(best * pair["exact"], rel=0.03)


def test_no_1_lipschitz_critic_is_above_the_distance_of_the_same_points(pairs):
    for pair in pairs.values():
        assert len(pair["estimates"]["spectral norm"]) == 41
        assert max(pair["estimates"]["spectral norm"]) < pair["exact"] * 1.003  # σ is an estimate
    one, two = (pairs[name]["estimates"]["spectral norm"][-1] / pairs[name]["exact"] for name in CHOSEN)
    assert one > 0.9  # one direction is enough: a linear D
    assert 0.3 < two < 0.75


def test_clipping_has_a_unit_of_its_own(pairs):
    for pair in pairs.values():
        large, small = (pair["estimates"][f"clipping {bound}"][-1] / pair["exact"] for bound in (0.1, 0.01))
        assert large > 2
        assert 0 < small < 0.01


class First(nn.Module):
    """x_1, with a layer that spectral norm has hold of."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        SpectralNorm()(self.layer)
        self.layer.weight = torch.randn(2, 2)  # which its vectors do not know yet: each training forward moves them

    def forward(self, x, y=None):
        return Logits(x[:, :1] + 0 * self.layer(x)[:, :1])


def test_the_estimate_is_data_minus_generated_and_leaves_the_critic_as_it_is():
    D = First()
    before = {name: value.clone() for name, value in D.state_dict().items()}
    x, generated = torch.randn(2, 40, 2)
    assert dual(D, x, generated) == pytest.approx((x.mean(0) - generated.mean(0))[0].item(), abs=1e-6)
    assert D.training
    assert_close(D.state_dict(), before, rtol=0, atol=0)


def test_an_unknown_pair_is_refused():
    with pytest.raises(ValueError, match=r"Duality\.pairs\.0 takes one of .*'Gaussian, wider'.*, got 'Gaussian'"):
        Duality(pairs=("Gaussian",))


def test_the_table_says_how_far_off_each_is():
    experiment = Duality(pairs=CHOSEN[:1], points=20, steps=2, clips=(0.5,))
    numbers = experiment.run()
    table = experiment.table(numbers)
    (row,) = table.rows
    exact = numbers["pairs"][CHOSEN[0]]["exact"]
    assert row[:3] == [CHOSEN[0], "1.000", f"{exact:.3f}"]
    assert table.columns[3:] == list(experiment.controls) == list(numbers["pairs"][CHOSEN[0]]["estimates"])
    for cell, found in zip(row[3:], numbers["pairs"][CHOSEN[0]]["estimates"].values(), strict=True):
        assert cell == f"{found[-1]:.3g} (× {found[-1] / exact:.3g})"
