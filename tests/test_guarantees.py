"""What is said of combinations that take a guarantee away, and that the guarantee is really gone."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from torch import nn

from equipoise.doctor import voided
from equipoise.losses import R1, R2, Dragan, GradientPenalty, Hinge, NonSaturating, Wasserstein, discriminator_loss
from equipoise.models import Head
from equipoise.nn import Discriminator, VirtualBatchNorm, WithReference
from equipoise.weights import (
    ClipSingularValues,
    ClipWeights,
    ExactSpectralNorm,
    FrobeniusNorm,
    NoNormalizer,
    SpectralNorm,
    UnitSphere,
    WeightNorm,
)

GRADIENT = [R1(), R2(), GradientPenalty(), Dragan()]
BOUNDS = [
    {"normalizer": SpectralNorm()},
    {"normalizer": ExactSpectralNorm()},
    {"normalizer": FrobeniusNorm()},
    {"constraints": (ClipWeights(),)},
    {"constraints": (ClipSingularValues(),)},
    {"constraints": (UnitSphere(),)},
]
NORMS = {
    "batch norm": nn.BatchNorm2d(3),
    "layer norm": nn.LayerNorm((3, 4, 4)),
    "group norm": nn.GroupNorm(3, 3),
    "instance norm": nn.InstanceNorm2d(3),
    "virtual batch norm": VirtualBatchNorm(3),
}


def named(part):
    return type(part).__name__ if not isinstance(part, dict) else type(next(iter(part.values()))).__name__


def net(norm=None):
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Identity() if norm is None else norm, nn.Flatten(), nn.Linear(48, 1))


@loop_over("penalty", GRADIENT, ids=named)
def test_batch_norm_under_a_penalty_on_gradients(penalty):
    (said,) = voided(net(nn.BatchNorm2d(3)), terms=[penalty])
    assert said.startswith(f"D has batch norm (1) under {type(penalty).__name__}: ")
    assert "layer, instance or group norm" in said
    for kind, norm in NORMS.items():
        assert (voided(net(norm), terms=[penalty]) == []) == (kind != "batch norm")


@loop_over("bound", BOUNDS, ids=lambda b: named(next(iter(b.values()))) if "normalizer" in b else str(b))
@loop_over("kind", NORMS)
def test_every_norm_of_activations_under_what_bounds_d(bound, kind):
    (said,) = voided(net(NORMS[kind]), **bound)
    assert said.startswith(f"D has {kind} (1) under ")
    assert "has no bound" in said
    assert voided(net(), **bound) == []


@loop_over("kind", NORMS)
def test_such_a_norm_undoes_the_scale_of_a_layer(kind):
    """The reason: the layer before may shrink its weights tenfold, and the slope of D stays what it was."""
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(2, 3, 3, bias=False).double(), NORMS[kind].double().train()
    x, direction = torch.randn(2, 4, 2, 6, 6, dtype=torch.float64)
    D = nn.Sequential(layer, norm)
    if kind == "virtual batch norm":
        D = WithReference(D, torch.randn(8, 2, 6, 6, dtype=torch.float64))

    def slope():
        return torch.autograd.functional.jvp(D, x, direction)[1].norm()

    before = slope()
    with torch.no_grad():
        layer.weight /= 10
    assert slope() > 0.9 * before


def test_both_and_every_penalty_is_named():
    said = voided(net(nn.BatchNorm2d(3)), terms=[R1(), Dragan()], normalizer=SpectralNorm())
    assert [sentence.split("under ")[1].split(":")[0] for sentence in said] == ["R1, Dragan", "SpectralNorm"]


def test_nothing_is_said_where_nothing_is_voided():
    for norm in NORMS.values():
        assert voided(net(norm)) == []
        assert voided(net(norm), normalizer=WeightNorm(), loss=Hinge()) == []  # it bounds nothing to begin with


# ---- a Wasserstein loss that nothing bounds --------------------------------------------------------------


def discriminator(san):
    return Discriminator(nn.Sequential(nn.Linear(2, 16), nn.ReLU()), Head(san=san).factory(0)(16))


@loop_over("san", [False, True], ids=["plain", "SAN"])
def test_a_wasserstein_loss_wants_a_bound(san):
    D = discriminator(san)
    for nothing in ({}, {"normalizer": WeightNorm()}):
        (said,) = voided(D, loss=Wasserstein(), **nothing)
        assert "nothing bounds" in said
    for bound in BOUNDS:
        said = voided(D, loss=Wasserstein(), **bound)
        assert len(said) == san
        assert all("leaves a SAN head alone" in sentence for sentence in said)
        assert voided(D, loss=Wasserstein(), terms=[GradientPenalty()], **bound) == []
    assert voided(D, loss=NonSaturating(), normalizer=NoNormalizer()) == []


@pytest.mark.parametrize("san", [False, True], ids=["plain", "SAN"])
def test_under_spectral_norm_the_critic_of_a_san_grows_and_a_plain_one_does_not(san):
    """The reason for saying so."""
    D = discriminator(san)
    SpectralNorm()(D)
    optimizer = torch.optim.Adam(D.parameters(), lr=0.02)
    real, fake = torch.randn(64, 2) + 2, torch.randn(64, 2) - 2
    estimates = []
    for _ in range(400):
        on_real, on_fake = D(real), D(fake)
        optimizer.zero_grad()
        discriminator_loss(Wasserstein(), on_real, on_fake).backward()
        optimizer.step()
        estimates.append((on_real.fun.mean() - on_fake.fun.mean()).item())
    grown = estimates[-1] / estimates[199]
    assert grown > 1.5 if san else grown < 1.2
