"""Constraints: D's weights after a step, in place."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

from equipoise import constraints
from equipoise.constraints import ClipWeights
from equipoise.heads import Discriminator, Head
from equipoise.normalizers import SpectralNorm, weighted_layers

ALL = [c() for name in constraints.__all__ if dataclasses.is_dataclass(c := getattr(constraints, name))]


def network(san=False):
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    return Discriminator(body, Head("projection", san=san).factory(10)(3))


@pytest.mark.parametrize("bound", [0.01, 0.1])
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


def test_a_san_head_is_not_clipped():
    """Its direction is all that counts, which clipping would turn."""
    D = network(san=True)
    before = {name: p.clone() for name, p in D.head.named_parameters()}
    ClipWeights()(D)
    assert all(torch.equal(p, before[name]) for name, p in D.head.named_parameters())
    assert D.body[0].weight.abs().max() <= 0.01


def test_a_wrapped_layer_is_clipped_beneath_its_norm():
    D = network()
    SpectralNorm()(D)
    ClipWeights(bound=0.02)(D)
    assert D.body[0].parametrizations.weight.original.abs().max() <= 0.02


def test_bound_is_positive():
    with pytest.raises(ValueError, match="bound"):
        ClipWeights(bound=0.0)


@pytest.mark.parametrize("constraint", ALL, ids=lambda c: type(c).__name__)
def test_every_constraint_is_a_projection_in_place(constraint):
    """Twice is once, whether or not the weights want a gradient."""
    for trainable in (True, False):
        D = network().requires_grad_(trainable)
        constraint(D)
        once = copy.deepcopy(D.state_dict())
        constraint(D)
        assert all(torch.equal(value, once[name]) for name, value in D.state_dict().items())
        assert all(p.grad is None and p.requires_grad == trainable for p in D.parameters())
