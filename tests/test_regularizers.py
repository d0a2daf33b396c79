"""Penalties on weights: closed forms, decompositions in float64, and a mean that is the mean of the history."""

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

from equipoise.core.schedules import Linear
from equipoise.losses import (
    HistoricalAverage,
    Orthogonal,
    Regularizer,
    SingularValuePenalty,
    SpectralNormPenalty,
    regularizers,
)
from equipoise.models import Head, Projection
from equipoise.nn import Discriminator
from equipoise.weights import ExactSpectralNorm, FrobeniusNorm, SpectralNorm, WeightNorm

ALL = [c for name in regularizers.__all__ if dataclasses.is_dataclass(c := getattr(regularizers, name))]
every_regularizer = loop_over("regularizer", ALL, ids=lambda c: c.__name__)
MEMORYLESS = [c for c in ALL if c is not HistoricalAverage]
memoryless = loop_over("regularizer", MEMORYLESS, ids=lambda c: c.__name__)


def linear(*shape):
    """A layer whose weight has this shape (C_out, C_in), and singular values above 1."""
    layer = nn.Linear(shape[1], shape[0]).double()
    nn.init.normal_(layer.weight)
    return layer


def network():
    """Singular values around 1 to 3."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ConvTranspose2d(3, 2, 2), nn.Flatten(), nn.Linear(50, 2)).double()
    for layer in (net[0], net[1], net[3]):
        nn.init.normal_(layer.weight, std=0.5)
    return net


def matrices(net):
    """Those of `network()`, (C_out, C_in·kh·kw)."""
    return [net[0].weight.flatten(1), net[1].weight.transpose(0, 1).flatten(1), net[3].weight]


# ---- closed forms ------------------------------------------------------------------------------------------


@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 99))
def test_orthogonal_compares_filters(rows, columns, seed):
    """Sums over pairs of rows, written out: (w_i · w_j)² for i != j, and (‖w_i‖² - 1)² with the diagonal."""
    torch.manual_seed(seed)
    layer = linear(rows, columns)
    w = layer.weight.detach()
    pairs = sum((w[i] @ w[j]) ** 2 for i in range(rows) for j in range(rows) if i != j)
    lengths = sum((w[i] @ w[i] - 1) ** 2 for i in range(rows))
    assert Orthogonal()(layer).item() == pytest.approx(float(pairs), rel=1e-9, abs=1e-12)
    assert Orthogonal(off_diagonal=False)(layer).item() == pytest.approx(float(pairs + lengths), rel=1e-9)


def test_the_gradient_of_orthogonal():
    """4 (W Wᵀ ⊙ (1 - I)) W. BigGAN's public code has 2 there: half of its formula's."""
    layer = linear(4, 6)
    w = layer.weight.detach()
    Orthogonal()(layer).backward()
    assert_close(layer.weight.grad, 4 * ((w @ w.T) * (1 - torch.eye(4, dtype=torch.float64))) @ w)


def test_orthogonal_filters_cost_nothing_whatever_their_length():
    rows = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q.T  # 4 orthonormal rows
    layer = linear(4, 6)
    for lengths, on_diagonal in (
        (torch.ones(4), 0.0),
        (torch.tensor([1.0, 2.0, 3.0, 0.5]), 9 + 64 + 0.75**2),
    ):
        layer.weight.data = lengths.double()[:, None] * rows
        assert Orthogonal()(layer).item() == pytest.approx(0, abs=1e-12)
        assert Orthogonal(off_diagonal=False)(layer).item() == pytest.approx(on_diagonal, abs=1e-9)
    layer.weight.data = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q  # orthonormal columns are not enough
    layer.weight.data = layer.weight.data.contiguous()
    assert Orthogonal()(layer).item() > 0.1


def test_orthogonal_leaves_embeddings_alone():
    """Ten classes cannot be orthogonal in four dimensions, nor need they be."""
    net = nn.ModuleList([linear(2, 3), nn.Embedding(10, 4)])
    assert torch.equal(Orthogonal()(net), Orthogonal()(net[0]))
    assert SpectralNormPenalty()(net) > SpectralNormPenalty()(net[0])


def test_spectral_norm_penalty_is_the_sum_of_squared_norms():
    net = network()
    wanted = sum(torch.linalg.svdvals(m)[0] ** 2 for m in matrices(net))
    assert_close(SpectralNormPenalty()(net), wanted, rtol=1e-12, atol=0)


def test_the_gradient_of_the_spectral_norm_penalty_is_sigma_u_v():
    """λ/2 σ² has the gradient λ σ u vᵀ (Yoshida & Miyato 2017, alg. 1, line 6)."""
    layer, penalty = linear(5, 3), SpectralNormPenalty(strength=0.3)
    left, s, right = torch.linalg.svd(layer.weight.detach())
    (penalty.weight(0) * penalty(layer)).backward()
    assert_close(layer.weight.grad, 0.3 * s[0] * torch.outer(left[:, 0], right[0]))


@loop_over("bound", [0.5, 1.0, 2.0])
def test_singular_value_penalty_is_the_sum_over_values_above_the_bound(bound):
    net = network()
    wanted = sum((torch.linalg.svdvals(m) - bound).clamp_min(0).square().sum() for m in matrices(net))
    assert wanted > 0.01
    assert_close(SingularValuePenalty(bound=bound)(net), wanted, rtol=1e-9, atol=0)
    found = torch.autograd.grad(SingularValuePenalty(bound=bound)(net), [p for p in net.parameters() if p.ndim > 1])
    for f, w in zip(found, torch.autograd.grad(wanted, [p for p in net.parameters() if p.ndim > 1]), strict=True):
        assert_close(f, w)


def test_singular_values_within_the_bound_cost_nothing():
    layer = linear(5, 3)
    layer.weight.data /= torch.linalg.svdvals(layer.weight.data)[0]
    for scale in (0.9, 0.0):  # also where the slope of √ is infinite
        layer.weight.data *= scale
        value = SingularValuePenalty()(layer)
        assert value == 0
        (slope,) = torch.autograd.grad(value, layer.weight)
        assert torch.equal(slope, torch.zeros(5, 3, dtype=torch.float64))


# ---- history -----------------------------------------------------------------------------------------------


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_historical_average_is_the_distance_to_the_mean_of_all_past_parameters():
    """Ten steps with the history kept; the gradient is 2 (θ - mean): the mean is no function of θ."""
    net = nn.Sequential(linear(3, 2), nn.BatchNorm1d(3), linear(2, 3)).double()
    average, history = HistoricalAverage().build(net), []
    for _ in range(10):
        history.append(flat(net))
        mean = torch.stack(history).mean(0)
        value = average(net)
        assert value.item() == pytest.approx((flat(net) - mean).square().sum().item(), rel=1e-9, abs=1e-15)
        gradients = torch.autograd.grad(value, list(net.parameters()))
        assert_close(torch.cat([g.flatten() for g in gradients]), 2 * (flat(net) - mean))
        with torch.no_grad():
            for p in net.parameters():
                p += torch.randn_like(p)
        average.update(net)


def test_historical_average_starts_at_zero_and_draws_back():
    """A step along its gradient shortens the way to the mean."""
    net = linear(3, 2)
    average = HistoricalAverage().build(net)
    assert average(net).item() == 0
    with torch.no_grad():
        net.weight += 1
    average.update(net)
    before = average(net)
    before.backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.1 * p.grad
    assert average(net) < before


def test_the_history_is_saved_and_resumed_bit_for_bit():
    """A run that is killed and resumed goes on as if nothing had happened."""
    net, other = network(), network()
    average = HistoricalAverage().build(net)

    def step(net, average):
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1.1)
        average.update(net)

    step(net, average)
    resumed = HistoricalAverage().build(other)  # of other weights, as a new process makes it
    other.load_state_dict(net.state_dict())
    resumed.load_state_dict(average.state_dict())
    for n, a in ((net, average), (other, resumed)):
        step(n, a)
        step(n, a)
    assert average(net) > 0
    assert torch.equal(average(net), resumed(other))
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in average.state_dict().items())


# ---- what every regulariser keeps, and a new one inherits ------------------------------------------------------


def moved(regularizer, net):
    """At work on `net`, where its value is not 0."""
    work = regularizer().build(net)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    return work


@every_regularizer
def test_is_a_regularizer(regularizer):
    assert issubclass(regularizer, Regularizer)
    assert regularizer().every == 1
    assert regularizer().weight(0) > 0
    assert regularizer(strength=Linear(start=8.0, end=0.0, kimg=1.0)).weight(500) in (4.0, 2.0)
    with pytest.raises(ValueError, match="every"):
        regularizer(every=0)
    with pytest.raises(ValueError, match="strength"):
        regularizer(strength=-1.0)


def test_weights():
    """strength, and half of it for the spectral norm's."""
    assert Orthogonal().weight(0) == 1e-4
    assert SpectralNormPenalty(strength=0.5).weight(0) == 0.25
    assert SingularValuePenalty(strength=3.0).weight(0) == 3
    assert HistoricalAverage(strength=3.0).weight(0) == 3


@every_regularizer
@loop_over("normalizer", [None, SpectralNorm, ExactSpectralNorm, FrobeniusNorm, WeightNorm])
def test_is_a_scalar_whose_gradient_reaches_the_weights_and_nothing_moves(regularizer, normalizer):
    """Not even the singular vectors of a spectral norm, in training mode."""
    net = network()
    if normalizer is not None:
        normalizer()(net)
    work = moved(regularizer, net)
    state = copy.deepcopy(net.state_dict())
    value = work(net)
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    with_weights = [p for n, p in net.named_parameters() if not n.endswith("bias")]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in with_weights)
    if normalizer is None:
        assert all(p.grad.abs().sum() > 0 for p in with_weights)


@memoryless
def test_sees_the_weight_after_its_normaliser(regularizer):
    """SN leaves σ = 1, so twice the raw weights are the same weights."""
    net = network()
    ExactSpectralNorm()(net)
    value = regularizer()(net)
    with torch.no_grad():
        for layer in (net[0], net[1], net[3]):
            layer.parametrizations.weight.original *= 2
    assert_close(regularizer()(net), value, rtol=1e-9, atol=1e-12)
    if regularizer is SpectralNormPenalty:
        assert value.item() == pytest.approx(3, rel=1e-9)
    if regularizer is SingularValuePenalty:
        assert value.item() == pytest.approx(0, abs=1e-12)


@memoryless
def test_a_san_head_takes_no_part(regularizer):
    body = nn.Sequential(nn.Flatten(), linear(5, 4))
    D = Discriminator(body, Head(Projection(), san=True).factory(10)(5))
    assert torch.equal(regularizer()(D), regularizer()(body))
    with pytest.raises(ValueError, match=r"SANHead has no linear or convolutional layer"):
        regularizer()(D.head)


@memoryless
def test_is_the_same_built_or_called_and_has_no_state(regularizer):
    net = network()
    work = regularizer().build(net)
    work.update(net)
    assert torch.equal(work(net), regularizer()(net))
    assert work.state_dict() == {}


@every_regularizer
def test_gradcheck(regularizer):
    net = nn.Sequential(linear(3, 2), linear(2, 3))
    work = moved(regularizer, net)

    class Value(nn.Module):
        """A module whose forward is the value, so that torch can put other weights in."""

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self):
            return work(self.net)

    def value(first, second):
        return torch.func.functional_call(Value(), {"net.0.weight": first, "net.1.weight": second}, ())

    weights = [net[0].weight.detach().clone().requires_grad_(True), net[1].weight.detach().clone().requires_grad_(True)]
    assert torch.autograd.gradcheck(value, weights)


@memoryless
def test_is_float32_under_autocast(regularizer):
    net = network().float()
    wanted = regularizer()(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(regularizer()(net), wanted, rtol=1e-6, atol=0)


@every_regularizer
def test_a_step_along_it_lowers_it(regularizer):
    net = network()
    work = moved(regularizer, net)
    before = work(net)
    before.backward()
    with torch.no_grad():
        for p in net.parameters():
            if p.grad is not None:
                p -= 1e-3 * p.grad
    assert work(net) < before
