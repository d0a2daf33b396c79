"""Constraints: D's weights after a step, in place."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.models import Head, Projection
from equipoise.nn import Discriminator
from equipoise.weights import (
    ClipSingularValues,
    ClipWeights,
    ExactSpectralNorm,
    FrobeniusNorm,
    SpectralNorm,
    UnitSphere,
    WeightNorm,
    constraints,
    remove,
    weighted_layers,
)

OUTPUTS_FIRST = {nn.ConvTranspose2d: (1, 0, 2, 3)}  # of the others the first axis counts the outputs
ALL = [c() for name in constraints.__all__ if dataclasses.is_dataclass(c := getattr(constraints, name))]


every_constraint = loop_over("constraint", ALL, ids=lambda c: type(c).__name__)


def layers():
    """One of each kind, some with more rows than columns; the largest singular value is 1.5."""
    made = nn.ModuleList(
        [
            nn.Linear(7, 5),
            nn.Linear(3, 11),
            nn.Embedding(10, 4),
            nn.Conv1d(3, 4, 3),
            nn.Conv2d(2, 30, 3),
            nn.ConvTranspose2d(6, 3, 2),
        ]
    )
    for layer in made:
        nn.init.normal_(layer.weight)
        layer.weight.data *= 1.5 / torch.linalg.svdvals(matrix(layer))[0]
    return made


def matrix(layer):
    """The weight as Miyato et al. read it: (C_out, the rest)."""
    return layer.weight.detach().permute(OUTPUTS_FIRST.get(type(layer), tuple(range(layer.weight.ndim)))).flatten(1)


def network(san=False):
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    return Discriminator(body, Head(Projection(), san=san).factory(10)(3))


@loop_over("bound", [0.01, 0.1])
def test_clipped_weights_are_the_nearest_ones_within_bounds(bound):
    D = network()
    before = copy.deepcopy(D)
    ClipWeights(bound=bound)(D)
    for (name, layer), (_, old) in zip(weighted_layers(D), weighted_layers(before), strict=True):
        for p, q in zip(layer.parameters(), old.parameters(), strict=True):
            assert p.abs().max().item() == pytest.approx(bound), name  # reached, and not passed
            assert (p.abs() <= bound).all(), name
            inside = q.abs() <= bound
            assert torch.equal(p[inside], q[inside]), name
            assert torch.equal(p[~inside].sign(), q[~inside].sign()), name


def test_the_weights_stay_the_same_objects():
    """An optimiser holds them: a constraint that replaced them would be forgotten."""
    D = network()
    before = dict(D.named_parameters())
    ClipWeights()(D)
    assert all(p is before[name] for name, p in D.named_parameters())
    assert all(p.requires_grad and p.is_leaf for p in D.parameters())


def test_a_wrapped_layer_is_clipped_beneath_its_norm():
    D = network()
    SpectralNorm()(D)
    ClipWeights(bound=0.02)(D)
    assert D.body[0].parametrizations.weight.original.abs().max() <= 0.02


@loop_over("clip", [ClipWeights, ClipSingularValues])
def test_bound_is_positive(clip):
    with pytest.raises(ValueError, match="bound"):
        clip(bound=0.0)


# ---- singular values ---------------------------------------------------------------------------------------


@loop_over("bound", [0.5, 1.0, 1.3])
@loop_over("dtype", [torch.float32, torch.float64])
def test_singular_values_are_clipped_and_the_singular_vectors_kept(bound, dtype):
    """U min(S, bound) Vᵀ, by torch's decomposition of each layer's matrix in float64."""
    net = layers().to(dtype)
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    biases = {n: p.clone() for n, p in net.named_parameters() if n.endswith("bias")}
    wanted = []
    for layer in net:
        left, s, right = torch.linalg.svd(matrix(layer).double(), full_matrices=False)
        assert s[0] > bound
        wanted.append(((left * s.clamp_max(bound)) @ right).to(dtype))
    ClipSingularValues(bound=bound)(net)
    for layer, clipped in zip(net, wanted, strict=True):
        assert_close(matrix(layer), clipped, rtol=0, atol=tolerance)
        assert torch.linalg.svdvals(matrix(layer).double())[0].item() == pytest.approx(bound, abs=tolerance)
    assert all(torch.equal(p, biases[n]) for n, p in net.named_parameters() if n.endswith("bias"))


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), scale=st.floats(0.01, 5), seed=st.integers(0, 99))
def test_clipping_is_the_nearest_point_of_the_ball(rows, columns, scale, seed):
    """‖W - P(W)‖_F is at most the distance to any other matrix with singular values up to 1, and 0 inside the ball."""
    torch.manual_seed(seed)
    layer = nn.Linear(columns, rows).double()
    nn.init.normal_(layer.weight, std=scale)
    before = layer.weight.detach().clone()
    ClipSingularValues()(layer)
    after = layer.weight.detach()
    if torch.linalg.svdvals(before)[0] <= 1:
        assert torch.equal(after, before)  # bit for bit
    assert torch.linalg.svdvals(after)[0] <= 1 + 1e-12
    distance = (before - after).norm()
    for _ in range(10):
        other = torch.randn(rows, columns, dtype=torch.float64)
        other /= torch.linalg.svdvals(other)[0]
        for candidate in (other, after + 0.1 * (other - after)):  # far away, and close by; the ball is convex
            assert distance <= (before - candidate).norm() + 1e-12


def test_weights_that_are_not_finite_are_left_to_be_reported():
    """The run then stops with an error that says where it diverged, not with LAPACK's."""
    layer = nn.Linear(3, 3)
    layer.weight.data[0, 0] = torch.nan
    ClipSingularValues()(layer)
    assert layer.weight.isnan().any()


# ---- the sphere --------------------------------------------------------------------------------------------


def test_each_weight_is_brought_to_a_unit_sphere_of_its_own():
    net = layers()
    before = copy.deepcopy(net)
    UnitSphere()(net)
    for layer, old in zip(net, before, strict=True):
        assert layer.weight.detach().square().sum().item() == pytest.approx(1, abs=1e-6)
        assert_close(layer.weight * old.weight.norm(), old.weight)  # the direction stays
        assert getattr(layer, "bias", None) is None or torch.equal(layer.bias, old.bias)


def test_a_zero_weight_stays_zero():
    layer = nn.Linear(3, 3)
    nn.init.zeros_(layer.weight)
    UnitSphere()(layer)
    assert torch.equal(layer.weight, torch.zeros(3, 3))


# ---- normalised layers -------------------------------------------------------------------------------------


@loop_over("constraint", [ClipSingularValues(), UnitSphere()], ids=lambda c: type(c).__name__)
@loop_over("normalizer", [SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_a_normalised_layer_is_refused(constraint, normalizer):
    """Its weight is a function of other ones; before anything is changed, and not once the norm is removed."""
    D = network()
    normalizer(skip=("body.0",))(D)
    before = copy.deepcopy(D.state_dict())
    with pytest.raises(ValueError, match=rf"{type(constraint).__name__}\(.*'body\.3', .* d_normalizer=NoNormalizer"):
        constraint(D)
    assert all(torch.equal(value, before[name]) for name, value in D.state_dict().items())
    constraint(remove(D))


# ---- what every constraint keeps, and a new one inherits -----------------------------------------------------


HOLDS = {
    ClipWeights: lambda layer: all((p.abs() <= 0.01).all() for p in layer.parameters()),
    ClipSingularValues: lambda layer: torch.linalg.svdvals(matrix(layer).double())[0] <= 1 + 1e-6,
    UnitSphere: lambda layer: abs(layer.weight.double().norm() - 1) < 1e-6,
}


@every_constraint
def test_holds_after_every_step(constraint):
    """Of an optimiser that would leave it far behind each time."""
    D, holds = network(), HOLDS[type(constraint)]
    optimizer = torch.optim.Adam(D.parameters(), lr=0.3)
    x, y = torch.randn(8, 1, 6, 6), torch.arange(8)
    for _ in range(5):
        D(x, y).fun.square().mean().backward()
        optimizer.step()
        assert not all(holds(layer) for _, layer in weighted_layers(D))
        constraint(D)
        for name, layer in weighted_layers(D):
            assert holds(layer), name


@every_constraint
def test_leaves_a_san_head_alone(constraint):
    D = network(san=True)
    before = {name: p.clone() for name, p in D.head.named_parameters()}
    constraint(D)
    assert all(torch.equal(p, before[name]) for name, p in D.head.named_parameters())


@every_constraint
def test_keeps_the_parameters_an_optimiser_holds(constraint):
    D = network()
    before = {name: (p, p.data_ptr()) for name, p in D.named_parameters()}
    constraint(D)
    assert all(p is before[name][0] and p.data_ptr() == before[name][1] for name, p in D.named_parameters())


@every_constraint
def test_every_constraint_is_a_projection_in_place(constraint):
    """Twice is once, whether or not the weights want a gradient."""
    for trainable in (True, False):
        D = network().requires_grad_(trainable)
        constraint(D)
        once = copy.deepcopy(D.state_dict())
        constraint(D)
        for name, value in D.state_dict().items():
            assert_close(value, once[name], rtol=1e-6, atol=1e-7)
        assert all(p.grad is None and p.requires_grad == trainable for p in D.parameters())
