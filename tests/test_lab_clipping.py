"""Clipping in the lab: gradients by layer against backpropagation by hand, and what becomes of clipped critics."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from loops import loop_over
from torch.testing import assert_close

pytest.importorskip("matplotlib")

from equipoise.core.types import ImageSpec
from equipoise.lab.theory.clipping import LOSS, Clipping, gradient_norms, histograms, samples, share_at, weights
from equipoise.lab.theory.optimal_discriminator import train_alone
from equipoise.losses import NonSaturating
from equipoise.models import Head, MLPDiscriminator
from equipoise.weights import ClipWeights, weighted_layers


def critic(width, depth):
    return Head().build(MLPDiscriminator(width, depth).build, ImageSpec(resolution=1, channels=2)).double()


# ---- gradients by layer --------------------------------------------------------------------------------------


def backwards(D, x, slope):
    """Norms for one image, from the logit to the image, written out. slope: of its loss over its logit."""
    layers = [layer for layer in D.body if hasattr(layer, "weight")]
    active, h = [], x.flatten().numpy()
    for layer in layers:
        h = np.maximum(layer.weight.detach().numpy() @ h + layer.bias.detach().numpy(), 0)
        active.append(h > 0)
    gradient = (
        slope(D.head.conditioning.linear.weight.detach().numpy()[0] @ h)
        * (D.head.conditioning.linear.weight.detach().numpy()[0])
    )
    found = [np.linalg.norm(gradient)]
    for layer, on in zip(reversed(layers), reversed(active), strict=True):
        gradient = layer.weight.detach().numpy().T @ (gradient * on)
        found.append(np.linalg.norm(gradient))
    return found[::-1]


def test_norms_are_those_of_each_images_own_gradient():
    """-s(-t) on real and s(t) on generated images, for a loss whose slope is not 1."""
    D = critic(width=6, depth=3)
    real, fake = torch.randn(2, 5, 2, 1, 1, dtype=torch.float64)
    by_hand = [backwards(D, x, lambda t: -1 / (1 + math.exp(t))) for x in real]
    by_hand += [backwards(D, x, lambda t: 1 / (1 + math.exp(-t))) for x in fake]
    found = gradient_norms(D, NonSaturating(), real, fake)
    assert_close(found, torch.from_numpy(np.mean(by_hand, axis=0)))
    assert len(found) == 1 + 3
    assert all(p.grad is None for p in D.parameters())


def with_weights(D, matrix):
    """Weights `matrix(shape, l)` in the l-th layer, no biases."""
    with torch.no_grad():
        for i, (_, layer) in enumerate(weighted_layers(D)):
            layer.weight.copy_(matrix(layer.weight.shape, i))
            if getattr(layer, "bias", None) is not None:
                layer.bias.zero_()
    return D


def factors(D, x):
    norms = gradient_norms(D, LOSS, x, x)[1:]
    return norms[:-1] / norms[1:]


@loop_over("c", [0.3, 0.01])
def test_random_signs_multiply_by_the_root_of_half_the_width(c):
    D = with_weights(critic(width=400, depth=5), lambda shape, i: c * torch.randn(shape, dtype=torch.float64).sign())
    x = torch.randn(50, 2, 1, 1, dtype=torch.float64)
    assert_close(factors(D, x), torch.full((4,), c * math.sqrt(200)).double(), rtol=0.15, atol=0)


@loop_over("c", [0.3, 0.01])
def test_units_that_agree_multiply_by_half_the_width(c):
    """Weights c s_l s_{l-1}ᵀ: unit i is active where s_l is 1 there, which is in half of them."""
    width = 20
    s = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(width // 2)
    of = {2: torch.ones(2, dtype=torch.float64), width: s, 1: torch.ones(1, dtype=torch.float64)}
    D = with_weights(critic(width, depth=5), lambda shape, i: c * torch.outer(of[shape[0]], of[shape[1]]))
    x = torch.rand(7, 2, 1, 1, dtype=torch.float64) + 0.1
    assert_close(factors(D, x), torch.full((4,), c * width / 2).double())


# ---- clipping ------------------------------------------------------------------------------------------------


@loop_over("bound", [0.05, 0.003])
def test_weights_are_within_the_bound_after_every_step(bound):
    """Clipped after the step, not before it: steps of lr are as large as the bound."""
    D = critic(width=8, depth=2).float()
    points = torch.Generator().manual_seed(0)
    steps = 0
    for step in train_alone(
        D, LOSS, lambda: samples(16, points), steps=20, lr=0.05, constraints=(ClipWeights(bound=bound),)
    ):
        within = all(p.abs().max() <= torch.tensor(bound) for p in D.parameters())
        assert within == (step > 0)
        steps = step
    assert steps == 20
    assert share_at(bound, weights(D)) > 0.3


def test_shares_and_histograms_of_weights():
    values = torch.tensor([-0.1, 0.1, 0.1, 0.0999, 0.0])
    assert share_at(0.1, values) == pytest.approx(3 / 5)
    found = histograms(torch.zeros(3), values)
    assert found["reach"] == pytest.approx(0.1)
    first, last = found["shares"]
    assert (first[20], first.sum()) == (1, 1)
    assert [last[i].item() for i in (0, 20, 40)] == pytest.approx([0.2, 0.2, 0.6])


def test_weights_are_those_of_every_layer_without_biases():
    assert len(weights(critic(width=5, depth=3))) == 2 * 5 + 5 * 5 + 5 * 5 + 5


# ---- the experiment ------------------------------------------------------------------------------------------


VANISH = ("c = 0.01", "c = 0.001")
EXPLODES = "c = 0.1"
PENALISED = "gradient penalty"
SHORT = Clipping(bounds=(0.1,), width=64, steps=150, batch_size=64, lr=2e-3, seed=1)


@pytest.fixture(scope="module")
def numbers():
    return SHORT.run()


@pytest.fixture(scope="module")
def vanished():
    """Of critics that more steps would not change."""
    critics = replace(SHORT, bounds=(0.01, 0.001), steps=10).run()["critics"]
    return {name: critics[name] for name in VANISH}


@loop_over("name", VANISH)
def test_with_a_small_bound_the_gradient_vanishes_by_a_steady_factor(name, vanished):
    """That of random signs, because the critic learns nothing."""
    found = vanished[name]
    by_layer = found["norms"][1:-1] / found["norms"][2:]
    assert_close(by_layer, torch.full_like(by_layer, found["factor"]), rtol=0.4, atol=0)
    assert found["factor"] == pytest.approx(found["theory"][0], rel=0.15)
    assert found["norms"][1] < 1e-10
    assert abs(found["gain"]) < 1e-10
    before, after = found["at_bound"]
    assert min(before, after) > 0.85  # it is clipping that put them there


def test_with_a_large_bound_the_gradient_explodes_and_weights_go_to_the_bounds(numbers):
    found = numbers["critics"][EXPLODES]
    assert (found["norms"][1:-1] > 1.3 * found["norms"][2:]).all()
    random, alike = found["theory"]
    assert 2 * random < found["factor"] < 1.2 * alike
    before, after = found["at_bound"]
    assert before == pytest.approx(1 - 0.1 * 8, abs=0.02)  # of initial weights, uniform up to 1/√64
    assert after > before + 0.15
    assert found["gain"] > 100


def test_the_larger_the_bound_the_larger_the_gradient_at_every_layer(numbers, vanished):
    large, small, smallest = (found["norms"][:-1] for found in (numbers["critics"][EXPLODES], *vanished.values()))
    assert (smallest < small / 10).all()
    assert (small < large / 10).all()


def test_under_the_gradient_penalty_it_stays_as_it_is(numbers):
    found = numbers["critics"][PENALISED]
    assert 0.7 < found["norms"][0] < 1.3  # at points, as the penalty asks
    assert found["norms"].max() < 8 * found["norms"].min()
    assert found["factor"] == pytest.approx(1, abs=0.15)
    assert 0.1 < found["gain"] < 2
    assert numbers["before"][0] < 1e-4  # which its initial weights were far from
    assert "at_bound" not in found


def test_clipped_weights_are_all_within_the_bound(numbers, vanished):
    for bound, found in zip((0.1, 0.01, 0.001), (numbers["critics"][EXPLODES], *vanished.values()), strict=True):
        assert found["weights"]["reach"] == pytest.approx(bound)
        for shares in found["weights"]["shares"]:
            assert shares.sum().item() == pytest.approx(1, abs=1e-4)


def test_the_table_and_the_figures(numbers):
    table = SHORT.table(numbers)
    assert [row[0] for row in table.rows] == [*numbers["critics"]]
    assert table.rows[0][4] == "0.57 to 3.2"  # 0.1 √32, 0.1 · 32
    assert table.rows[-1][4:6] == ["", ""]
    critics = SHORT.draw(numbers)["clipping_critics"]
    assert len(critics.axes) == 2 * len(numbers["critics"])
