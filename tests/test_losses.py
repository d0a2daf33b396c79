"""Losses against their formulas, in float64, written with logarithms and sigmoids as the papers do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from torch.testing import assert_close

from equipoise.losses import (
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticPairing,
    Saturating,
    SoftLeastSquares,
    Wasserstein,
)
from equipoise.losses import adversarial as losses

ALL = [c for name in losses.__all__ if dataclasses.is_dataclass(c := getattr(losses, name))]
UNPAIRED = [c for c in ALL if not c.paired]


def s(t):
    return 1 / (1 + torch.exp(-t))


def log(t):
    return torch.log(t)


def positive(t):
    """max(0, t)."""
    return torch.where(t > 0, t, torch.zeros_like(t))


def softplus(t):
    return log(1 + torch.exp(t))


# loss: (d(r, f), g(f, r)), from section 1 of each paper
FORMULAS = {
    Saturating(): (lambda r, f: -log(s(r)) - log(1 - s(f)), lambda f, r: log(1 - s(f))),
    NonSaturating(): (lambda r, f: -log(s(r)) - log(1 - s(f)), lambda f, r: -log(s(f))),
    Saturating(smoothing=0.1): (
        lambda r, f: -0.9 * log(s(r)) - 0.1 * log(1 - s(r)) - log(1 - s(f)),
        lambda f, r: log(1 - s(f)),
    ),
    NonSaturating(smoothing=0.3): (
        lambda r, f: -0.7 * log(s(r)) - 0.3 * log(1 - s(r)) - log(1 - s(f)),
        lambda f, r: -log(s(f)),
    ),
    Hinge(): (lambda r, f: positive(1 - r) + positive(1 + f), lambda f, r: -f),
    Wasserstein(): (lambda r, f: f - r, lambda f, r: -f),
    LeastSquares(): (lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda f, r: (f - 1) ** 2 / 2),
    LeastSquares(a=-1.0, b=2.0, c=0.5): (
        lambda r, f: ((r - 2) ** 2 + (f + 1) ** 2) / 2,
        lambda f, r: (f - 0.5) ** 2 / 2,
    ),
    SoftLeastSquares(): (lambda r, f: softplus(1 - r) ** 2 + softplus(f) ** 2, lambda f, r: softplus(1 - f) ** 2),
    RelativisticPairing(): (lambda r, f: -log(s(r - f)), lambda f, r: -log(s(f - r))),
}


def moderate(n=40, k=3):
    """Logits where the naive formulas are exact: |t| < 5, (n, k) each."""
    return torch.rand(n, k, dtype=torch.float64) * 10 - 5, torch.rand(n, k, dtype=torch.float64) * 10 - 5


def derivative(function, t):
    t = t.clone().requires_grad_(True)
    return torch.autograd.grad(function(t).sum(), t)[0]


@loop_over("loss", FORMULAS, ids=repr)
def test_values_and_gradients_are_the_formulas(loss):
    d, g = FORMULAS[loss]
    real, fake = moderate()
    assert_close(loss.d(real, fake), d(real, fake), rtol=1e-12, atol=1e-12)
    assert_close(loss.g(fake, real), g(fake, real), rtol=1e-12, atol=1e-12)
    assert_close(derivative(lambda t: loss.d(t, fake), real), derivative(lambda t: d(t, fake), real))
    assert_close(derivative(lambda t: loss.d(real, t), fake), derivative(lambda t: d(real, t), fake))
    assert_close(derivative(lambda t: loss.g(t, real), fake), derivative(lambda t: g(t, real), fake))


def test_every_loss_has_a_formula_here():
    assert {type(loss) for loss in FORMULAS} == set(ALL)


# ---- what every loss keeps, and a new one inherits --------------------------------------------------------


@loop_over("loss", ALL, ids=lambda c: c.__name__)
def test_is_elementwise(loss):
    """The (i, k) entry reads the (i, k) logits alone, and nothing is reduced."""
    real, fake = moderate(5, 2)
    d, g = loss().d(real, fake), loss().g(fake, real)
    assert d.shape == g.shape == (5, 2)
    for i in range(5):
        for k in range(2):
            assert_close(d[i, k], loss().d(real[i, k], fake[i, k]))
            assert_close(g[i, k], loss().g(fake[i, k], real[i, k]))


@loop_over("loss", ALL, ids=lambda c: c.__name__)
@loop_over("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_keeps_the_dtype(loss, dtype):
    real, fake = (t.to(dtype) for t in moderate())
    assert loss().d(real, fake).dtype == loss().g(fake, real).dtype == dtype


@loop_over("loss", ALL, ids=lambda c: c.__name__)
def test_sign_convention(loss):
    """At logit 0, D wants real logits up and does not want fake ones up; G wants fake logits up."""
    zero = torch.zeros(1, dtype=torch.float64)
    assert derivative(lambda t: loss().d(t, zero), zero) < 0
    assert derivative(lambda t: loss().d(zero, t), zero) >= 0
    assert derivative(lambda t: loss().g(t, zero), zero) < 0


@loop_over("loss", ALL, ids=lambda c: c.__name__)
@loop_over("real", [-30.0, 0.0, 30.0])
@loop_over("fake", [-30.0, 0.0, 30.0])
def test_is_finite_at_extreme_logits(loss, real, fake):
    r, f = (torch.tensor([t], requires_grad=True) for t in (real, fake))  # float32, as in training
    for value in (loss().d(r, f), loss().g(f, r)):
        gradients = torch.autograd.grad(value.sum(), (r, f), allow_unused=True)
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in gradients if g is not None)


@loop_over("loss", UNPAIRED, ids=lambda c: c.__name__)
def test_g_of_an_unpaired_loss_ignores_real(loss):
    real, fake = moderate()
    assert torch.equal(loss().g(fake, real), loss().g(fake))


@loop_over("loss", [c for c in ALL if c.paired], ids=lambda c: c.__name__)
def test_g_of_a_paired_loss_needs_real(loss):
    with pytest.raises(ValueError, match=rf"{loss.__name__}\.g compares with real images: pass their logits"):
        loss().g(torch.zeros(2, 1))


# ---- gradients where the naive -log(s + eps) loses them ----------------------------------------------------

# (loss, player, t) -> the derivative, from pencil and paper: s(30) is 1 to 13 digits
SATURATED = [
    (NonSaturating(), "g", -30.0, -1.0),
    (NonSaturating(), "g", 30.0, 0.0),
    (Saturating(), "g", -30.0, 0.0),
    (Saturating(), "g", 30.0, -1.0),
    (NonSaturating(), "real", -30.0, -1.0),
    (NonSaturating(), "real", 30.0, 0.0),
    (NonSaturating(), "fake", 30.0, 1.0),
    (NonSaturating(), "fake", -30.0, 0.0),
    (NonSaturating(smoothing=0.1), "real", 30.0, 0.1),
    (NonSaturating(smoothing=0.1), "real", -30.0, -0.9),
    (Hinge(), "g", -30.0, -1.0),
    (Hinge(), "real", 30.0, 0.0),
    (Hinge(), "fake", 30.0, 1.0),
    (Wasserstein(), "real", 30.0, -1.0),
    (LeastSquares(), "g", -30.0, -31.0),
    (LeastSquares(), "real", 30.0, 29.0),
    (SoftLeastSquares(), "g", -30.0, -62.0),  # 2 softplus(31) · -s(31)
    (SoftLeastSquares(), "fake", 30.0, 60.0),
    (RelativisticPairing(), "g", -30.0, -1.0),
    (RelativisticPairing(), "real", -30.0, -1.0),
]


@loop_over("dtype", [torch.float32, torch.float64], ids=str)
@loop_over(("loss", "player", "t", "expected"), SATURATED)
def test_gradient_at_30(loss, player, t, expected, dtype):
    zero = torch.zeros(1, dtype=dtype)
    terms = {
        "g": lambda x: loss.g(x, zero),
        "real": lambda x: loss.d(x, zero),
        "fake": lambda x: loss.d(zero, x),
    }
    found = derivative(terms[player], torch.tensor([t], dtype=dtype)).item()
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@loop_over("t", [-30.0, -80.0])
def test_saturating_vanishes_where_d_is_sure_but_never_is_exactly_zero(t):
    """d/dt log(1 - s(t)) = -s(t), which float32 holds down to exp(-87)."""
    found = derivative(Saturating().g, torch.tensor([t])).item()
    assert found == pytest.approx(-torch.tensor(t, dtype=torch.float64).exp().item(), rel=1e-5)


# ---- one-sided label smoothing ---------------------------------------------------------------------------


@loop_over("loss", [Saturating, NonSaturating])
@loop_over("a", [0.0, 0.1, 0.25])
def test_smoothing_is_the_cross_entropy_with_target_1_minus_a(loss, a):
    real, fake = moderate()
    bce = torch.nn.functional.binary_cross_entropy
    expected = bce(s(real), torch.full_like(real, 1 - a), reduction="none")
    expected += bce(s(fake), torch.zeros_like(fake), reduction="none")
    assert_close(loss(smoothing=a).d(real, fake), expected, rtol=1e-10, atol=1e-10)


@loop_over("a", [0.0, 0.1, 0.3])
def test_optimal_discriminator_under_smoothing(a):
    """D* = (1 - a) p / (p + q) (Salimans et al. 2016), found by minimising p d(t, .) + q d(., t) over t."""
    p = torch.tensor([0.05, 0.3, 1.0, 2.0], dtype=torch.float64)
    q = torch.tensor([1.0, 0.3, 0.2, 0.05], dtype=torch.float64)
    loss, zero = NonSaturating(smoothing=a), torch.zeros(4, dtype=torch.float64)
    low, high = zero - 20, zero + 20
    for _ in range(60):  # bisection: the risk is convex in t
        t = (low + high) / 2
        slope = p * derivative(lambda x: loss.d(x, zero), t) + q * derivative(lambda x: loss.d(zero, x), t)
        low, high = torch.where(slope < 0, t, low), torch.where(slope < 0, high, t)
    assert_close(s(t), (1 - a) * p / (p + q), rtol=1e-9, atol=0)


def test_smoothing_does_not_change_g():
    fake, _ = moderate()
    for loss in (Saturating, NonSaturating):
        assert torch.equal(loss(smoothing=0.2).g(fake), loss().g(fake))


@loop_over("loss", [Saturating, NonSaturating])
@loop_over("a", [-0.1, 1.0])
def test_smoothing_out_of_range(loss, a):
    with pytest.raises(ValueError, match="smoothing"):
        loss(smoothing=a)


# ---- relations between losses ----------------------------------------------------------------------------


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20))
def test_relativistic_pairing_reads_differences_alone(real, fake, shift):
    r, f = (torch.tensor(t, dtype=torch.float64) for t in (real, fake))
    loss = RelativisticPairing()
    assert_close(loss.d(r + shift, f + shift), loss.d(r, f), rtol=1e-9, atol=1e-9)
    assert_close(loss.g(f, r), loss.d(f, r))  # the players swap roles


@given(st.floats(-30, 30))
def test_nonsaturating_and_saturating_g_differ_by_the_logit(fake):
    """-log s(t) + log(1 - s(t)) = -t."""
    t = torch.tensor(fake, dtype=torch.float64)
    assert_close(NonSaturating().g(t) + Saturating().g(t), -t, rtol=1e-9, atol=1e-9)


@given(st.floats(-30, 30))
def test_soft_least_squares_is_monotone(t):
    """What plain least squares is not: D always wants real up and fake down, G fake up."""
    x, zero, loss = torch.tensor([t], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), SoftLeastSquares()
    assert derivative(lambda r: loss.d(r, zero), x) < 0
    assert derivative(lambda f: loss.d(zero, f), x) > 0
    assert derivative(loss.g, x) < 0
