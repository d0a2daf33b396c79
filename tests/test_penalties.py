"""Gradient penalties: one norm per image, closed forms, and gradients that reach the whole network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from equipoise import penalties
from equipoise.penalties import R1, R2, GradientPenalty, Penalty
from equipoise.schedules import Linear
from equipoise.types import Batch

ALL = [c for name in penalties.__all__ if dataclasses.is_dataclass(c := getattr(penalties, name))]
every_penalty = pytest.mark.parametrize("penalty", ALL, ids=lambda c: c.__name__)


def images(n, *shape, y=None):
    return Batch(torch.randn(n, *(shape or (2, 4, 4)), dtype=torch.float64), y)


def linear_critic(norm):
    """x -> <a, x> with ‖a‖ = norm, for images (2, 4, 4): the gradient is a everywhere."""
    a = torch.randn(2, 4, 4, dtype=torch.float64)
    a *= norm / a.norm()
    return lambda x, y: (x * a).flatten(1).sum(1, keepdim=True)


def quadratic_critic():
    """x -> xᵀAx/2 with A symmetric, whose gradient is Ax. Returns it and A."""
    A = torch.randn(32, 32, dtype=torch.float64)
    A = A + A.T

    def critic(x, y):
        v = x.flatten(1)
        return 0.5 * ((v @ A) * v).sum(1, keepdim=True)

    return critic, A


def network():
    """Smooth, so that second derivatives do not vanish."""
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 1))


# ---- closed forms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_gradient_penalty_of_a_unit_norm_linear_critic_is_zero(n):
    """For every batch size: one norm over the batch would be √n."""
    value = GradientPenalty()(linear_critic(1.0), images(n), images(n))
    assert_close(value, torch.zeros(n, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("norm", "target"), [(3.0, 1.0), (0.5, 1.0), (3.0, 0.0), (3.0, 2.5)])
def test_gradient_penalty_of_a_linear_critic(n, norm, target):
    value = GradientPenalty(target=target)(linear_critic(norm), images(n), images(n))
    assert_close(value, torch.full((n,), (norm - target) ** 2, dtype=torch.float64))


def test_gradient_penalty_is_finite_where_the_gradient_vanishes():
    """√ has an infinite slope at 0, which a critic that starts constant meets."""
    weight = torch.zeros(2, 4, 4, requires_grad=True)
    value = GradientPenalty()(lambda x, y: (x * weight).flatten(1).sum(1), images(3), images(3))
    assert_close(value.detach(), torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=0)
    value.mean().backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("n", [1, 6])
def test_r1_and_r2_of_a_quadratic_critic(n):
    """‖Ax‖², on real and on fake images."""
    critic, A = quadratic_critic()
    real, fake = images(n), images(n)
    assert_close(R1()(critic, real, fake), (real.x.flatten(1) @ A).square().sum(1))
    assert_close(R2()(critic, real, fake), (fake.x.flatten(1) @ A).square().sum(1))


def test_gradient_penalty_looks_between_real_and_fake():
    """Where the critic is asked: x̂_i = ε_i real_i + (1 - ε_i) fake_i, with an ε_i in [0, 1] of its own."""
    seen = []

    def critic(x, y):
        seen.append((x.detach(), y))
        return x.flatten(1).sum(1)

    y = torch.arange(200)
    real, fake = images(200, y=y), images(200, y=y + 1)
    GradientPenalty()(critic, real, fake)
    ((x, labels),) = seen
    along = (fake.x - real.x).flatten(1)
    epsilon = 1 - ((x - real.x).flatten(1) * along).sum(1) / along.square().sum(1)
    assert_close(x, torch.lerp(fake.x, real.x, epsilon.view(-1, 1, 1, 1)))  # on the segment, one ε for all pixels
    assert torch.equal(labels, y)
    assert ((epsilon >= 0) & (epsilon <= 1)).all()
    ranks = epsilon.sort().values
    uniform = (torch.arange(200) + 0.5) / 200
    assert (ranks - uniform).abs().max() < 0.12  # Kolmogorov: 1.63/√200 at 1 %


def test_the_other_images_are_not_looked_at():
    """R1 reads real images with their labels, R2 generated ones with theirs."""
    for penalty, wanted in ((R1(), 0), (R2(), 1)):
        seen = []

        def critic(x, y, seen=seen):
            seen.append((x, y))
            return x.flatten(1).sum(1)

        batches = images(3, y=torch.tensor([0, 1, 2])), images(3, y=torch.tensor([2, 2, 2]))
        penalty(critic, *batches)
        ((x, y),) = seen
        assert torch.equal(x, batches[wanted].x)
        assert torch.equal(y, batches[wanted].y)


# ---- what every penalty keeps, and a new one inherits ---------------------------------------------------------


@every_penalty
def test_is_a_penalty(penalty):
    assert isinstance(penalty(), Penalty)
    assert penalty().every >= 1
    assert penalty().weight(0) > 0
    with pytest.raises(ValueError, match="every"):
        penalty(every=0)


@every_penalty
def test_is_one_value_per_image_that_other_images_do_not_change(penalty):
    """The value of images 0 to 3 is the same without images 4 to 9."""
    net, real, fake = network().double(), images(10), images(10)

    def critic(x, y):
        return net(x)

    torch.manual_seed(1)
    whole = penalty()(critic, real, fake)
    torch.manual_seed(1)  # ε is drawn per image, in order
    part = penalty()(critic, Batch(real.x[:4]), Batch(fake.x[:4]))
    assert whole.shape == (10,)
    assert (whole >= 0).all()
    assert_close(part, whole[:4])


@every_penalty
def test_permuting_the_batch_permutes_the_values(penalty, monkeypatch):
    net, real, fake, order = network().double(), images(6), images(6), torch.randperm(6)
    epsilon = torch.rand(6, 1, 1, 1, dtype=torch.float64)

    def value(places):
        monkeypatch.setattr(torch, "rand", lambda *_, **__: epsilon[places])  # each image keeps its ε
        return penalty()(lambda x, y: net(x), Batch(real.x[places]), Batch(fake.x[places]))

    assert_close(value(order), value(torch.arange(6))[order])


@every_penalty
def test_reaches_every_weight(penalty):
    """The gradient of the penalty, a second derivative of D, is not cut from the graph."""
    net = network()
    real, fake = Batch(torch.randn(4, 2, 4, 4)), Batch(torch.randn(4, 2, 4, 4))
    value = penalty()(lambda x, y: net(x), real, fake)
    value.mean().backward()
    for name, p in net.named_parameters():
        if name == "5.bias":  # adds a constant to D
            assert p.grad is None
        else:
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().sum() > 0, name
    assert real.x.grad is None
    assert not real.x.requires_grad


@every_penalty
@pytest.mark.parametrize("k", [1, 3])
def test_a_critic_with_many_logits_is_summed(penalty, k):
    """(N, K) logits: the gradient is that of their sum, K times that of one of them repeated."""
    net, real, fake = network().double(), images(4), images(4)

    def value(critic):
        torch.manual_seed(1)
        return penalty()(critic, real, fake)

    assert_close(value(lambda x, y: net(x).expand(-1, k)), value(lambda x, y: k * net(x)))


@every_penalty
def test_works_on_points(penalty):
    """Toy data is (N, 2)."""
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    assert penalty()(lambda x, y: net(x), images(5, 2), images(5, 2)).shape == (5,)


@every_penalty
def test_works_where_images_have_a_graph(penalty):
    """Generated images may come with G's graph, into which nothing flows back."""
    z = torch.randn(3, 2, 4, 4, requires_grad=True)
    net = network()
    penalty()(lambda x, y: net(x), Batch(z * 2), Batch(z * 3)).mean().backward()
    assert z.grad is None


# ---- weights -----------------------------------------------------------------------------------------------


def test_weights():
    """gamma/2 for R1 and R2, strength for the gradient penalty; each may follow a schedule."""
    assert R1(gamma=10.0).weight(0) == 5
    assert R2(gamma=3.0).weight(10**6) == 1.5
    assert GradientPenalty(strength=10.0).weight(0) == 10
    halving = Linear(start=10.0, end=0.0, kimg=1.0)
    assert R1(gamma=halving).weight(500) == pytest.approx(2.5)
    assert GradientPenalty(strength=halving).weight(500) == pytest.approx(5.0)


def test_the_value_does_not_depend_on_the_weight():
    critic, _ = quadratic_critic()
    real, fake = images(4), images(4)
    assert torch.equal(R1(gamma=1.0, every=1)(critic, real, fake), R1(gamma=100.0, every=16)(critic, real, fake))
