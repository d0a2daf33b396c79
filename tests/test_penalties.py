"""Gradient penalties: one norm per image, closed forms, and gradients that reach the whole network."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.schedules import Linear
from equipoise.core.types import Batch
from equipoise.losses import R1, R2, Dragan, Drift, GradientPenalty, Penalty, penalties

ALL = [c for name in penalties.__all__ if dataclasses.is_dataclass(c := getattr(penalties, name))]
every_penalty = loop_over("penalty", ALL, ids=lambda c: c.__name__)


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


@loop_over("n", [1, 2, 7, 64])
def test_gradient_penalty_of_a_unit_norm_linear_critic_is_zero(n):
    """For every batch size: one norm over the batch would be √n."""
    value = GradientPenalty()(linear_critic(1.0), images(n), images(n))
    assert_close(value, torch.zeros(n, dtype=torch.float64), rtol=0, atol=1e-12)


@loop_over("n", [1, 5])
@loop_over(("norm", "target"), [(3.0, 1.0), (0.5, 1.0), (3.0, 0.0), (3.0, 2.5)])
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


@given(
    n=st.integers(1, 9),
    norm=st.floats(0.01, 20),
    target=st.floats(0, 5),
    one_sided=st.booleans(),
    points=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_linear_critic_has_a_closed_form(n, norm, target, one_sided, points, seed):
    """(norm - target)², or max(0, norm - target)², wherever the penalty looks: images and points, two penalties."""
    torch.manual_seed(seed)
    shape = (2,) if points else (1, 3, 3)
    a = torch.randn(shape, dtype=torch.float64)
    a *= norm / a.norm()
    excess = norm - target
    wanted = torch.full((n,), max(excess, 0.0) ** 2 if one_sided else excess**2, dtype=torch.float64)

    def critic(x, y):
        return (x * a).flatten(1).sum(1)

    real, fake = images(n, *shape), images(n, *shape)
    assert_close(GradientPenalty(target=target, one_sided=one_sided)(critic, real, fake), wanted, rtol=1e-6, atol=1e-9)
    if not one_sided:
        assert_close(Dragan(target=target)(critic, real, fake), wanted, rtol=1e-6, atol=1e-9)


def test_the_one_sided_penalty_leaves_flat_images_alone():
    """Per image: steeper than the target is penalised as before, flatter not at all, with no gradient either."""
    scale = torch.tensor([0.2, 0.9, 1.5, 3.0], dtype=torch.float64, requires_grad=True)
    a = linear_critic(1.0)

    def value(penalty):
        return penalty(lambda x, y: a(x, y) * scale[:, None], images(4), images(4))

    one_sided, two_sided = value(GradientPenalty(one_sided=True)), value(GradientPenalty())
    assert_close(one_sided.detach(), torch.tensor([0, 0, 0.25, 4.0], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert_close(two_sided.detach(), torch.tensor([0.64, 0.01, 0.25, 4.0], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(one_sided.sum(), scale)
    assert_close(slope, torch.tensor([0, 0, 1.0, 4.0], dtype=torch.float64))  # 2 (s - 1)


@loop_over("penalty", [GradientPenalty, Dragan])
def test_the_zero_centred_penalty_is_the_squared_norm_and_nothing_else(penalty):
    """No √, no ε: 0 where the gradient is 0, also in float32, and 2 ‖a‖² as the slope in the scale of <a, x>."""
    flat = torch.zeros((), requires_grad=True)
    value = penalty(target=0.0)(
        lambda x, y: (x * flat).flatten(1).sum(1), Batch(torch.randn(3, 2)), Batch(torch.ones(3, 2))
    )
    assert torch.equal(value, torch.zeros(3))
    value.sum().backward()
    assert flat.grad == 0
    tiny = torch.tensor(1e-9, dtype=torch.float64, requires_grad=True)
    a = linear_critic(1.0)
    value = penalty(target=0.0)(lambda x, y: tiny * a(x, y), images(1), images(1))
    assert value.item() == pytest.approx(1e-18, rel=1e-12)
    value.sum().backward()
    assert tiny.grad.item() == pytest.approx(2e-9, rel=1e-12)


@loop_over("n", [1, 6])
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


def test_dragan_looks_around_real_images():
    """x̂ - real = noise · std · u: one std, of the batch, and a u ~ U[0, 1] for each pixel; no generated image."""
    seen = []

    def critic(x, y):
        seen.append((x.detach(), y))
        return x.flatten(1).sum(1)

    y = torch.arange(100)
    scales = torch.linspace(0.1, 3, 100, dtype=torch.float64).view(-1, 1, 1, 1)  # images of very different contrast
    real = Batch(3 + scales * torch.randn(100, 2, 4, 4, dtype=torch.float64), y)
    Dragan(noise=0.7)(critic, real, images(1))
    ((x, labels),) = seen
    assert torch.equal(labels, y)
    std = (real.x - real.x.mean()).square().mean().sqrt()  # over everything
    u = ((x - real.x) / (0.7 * std)).flatten()
    assert u.min() >= -1e-12
    assert u.max() <= 1 + 1e-12
    uniform = (torch.arange(3200) + 0.5) / 3200
    for part in (u.view(100, 32)[:50], u.view(100, 32)[50:], u.view(100, 32)[:, :16]):
        ranks = part.flatten().sort().values
        assert (ranks - uniform[::2] - 0.5 / 3200).abs().max() < 1.63 / 40  # Kolmogorov at 1 %, in every part
    assert u.view(100, 32).std(1).min() > 0.15  # not one number per image
    assert torch.corrcoef(u.view(100, 32).T).fill_diagonal_(0).abs().max() < 0.5


@loop_over("n", [1, 4])
def test_dragan_of_a_batch_without_contrast_is_finite(n):
    """A batch of one, or of equal pixels: std 0, not NaN."""
    value = Dragan()(linear_critic(2.0), Batch(torch.ones(n, 2, 4, 4, dtype=torch.float64)), images(n))
    assert_close(value, torch.ones(n, dtype=torch.float64))
    assert_close(Dragan()(lambda x, y: x.square(), Batch(torch.ones(1, 1)), images(1)), torch.ones(1))


@loop_over("fakes", [3, 1])
def test_pairs_need_as_many_generated_images(fakes):
    """One generated image would silently be paired with all real ones."""
    with pytest.raises(ValueError, match=rf"one by one, got \(4, 2, 4, 4\) and \({fakes}, 2, 4, 4\)"):
        GradientPenalty()(linear_critic(1.0), images(4), images(fakes))


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
    """The value of images 0 to 4 is the same without images 5 to 9 (which have the same deviation: Dragan reads it)."""
    net, fake = network().double(), images(10)
    first = images(5).x
    real = Batch(torch.cat([first, first.flip(3)]))

    def critic(x, y):
        return net(x)

    torch.manual_seed(1)
    whole = penalty()(critic, real, fake)
    torch.manual_seed(1)  # ε is drawn per image, in order
    part = penalty()(critic, Batch(real.x[:5]), Batch(fake.x[:5]))
    assert whole.shape == (10,)
    assert (whole >= 0).all()
    assert_close(part, whole[:5])
    assert (whole[5:] - whole[:5]).abs().max() > 1e-4


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
        if name == "5.bias" and penalty is not Drift:  # adds a constant to D
            assert p.grad is None
        else:
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().sum() > 0, name
    assert real.x.grad is None
    assert not real.x.requires_grad


@every_penalty
@loop_over("k", [1, 3])
def test_a_critic_with_many_logits_is_summed(penalty, k):
    """(N, K) logits: the gradient is that of their sum, K times that of one of them repeated; drift is their mean."""
    k = 1 if penalty is Drift else k
    net, real, fake = network().double(), images(4), images(4)

    def value(critic):
        torch.manual_seed(1)
        return penalty()(critic, real, fake)

    assert_close(value(lambda x, y: net(x).expand(-1, k)), value(lambda x, y: k * net(x)))


def test_drift_of_several_logits_is_the_mean_of_their_squares():
    """Not the square of their mean, which lets them drift apart in opposite directions."""
    logits = torch.tensor([[3.0, -3.0], [1.0, 2.0]])
    value = Drift()(lambda x, y: logits, Batch(torch.zeros(2, 1, 2, 2)))
    assert_close(value, torch.tensor([9.0, 2.5]))


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


@every_penalty
def test_is_float32_under_autocast_and_with_images_of_half_the_precision(penalty):
    """A step in bfloat16 penalises the same numbers: second derivatives of a bfloat16 D are noise."""
    net = network()
    real, fake = torch.randn(4, 2, 4, 4).bfloat16(), torch.randn(4, 2, 4, 4).bfloat16()

    def value(x_real, x_fake):
        torch.manual_seed(1)
        return penalty()(lambda x, y: net(x), Batch(x_real), Batch(x_fake))

    wanted = value(real.float(), fake.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = value(real.float(), fake)  # G's output is bfloat16 under autocast, data is not
        halves = value(real, fake)
    assert found.dtype == torch.float32
    assert_close(found, wanted, rtol=1e-6, atol=0)
    assert_close(halves, wanted, rtol=1e-6, atol=0)
    for p, q in zip(
        torch.autograd.grad(found.mean(), net[0].weight),
        torch.autograd.grad(wanted.mean(), net[0].weight),
        strict=True,
    ):
        assert_close(p, q, rtol=1e-5, atol=1e-7)


@every_penalty
def test_its_gradient_in_the_weights_is_that_of_finite_differences(penalty):
    """The whole second derivative, in float64."""
    net, real, fake = (
        nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1)).double(),
        images(3, 3),
        images(3, 3),
    )

    def value(weight):
        torch.manual_seed(1)  # the same ε every time
        critic = lambda x, y: torch.func.functional_call(net, {"0.weight": weight}, (x,))  # noqa: E731
        return penalty()(critic, real, fake).mean()

    assert torch.autograd.gradcheck(value, (net[0].weight.detach().clone().requires_grad_(True),))


# ---- weights -----------------------------------------------------------------------------------------------


def test_weights():
    """gamma/2 for R1 and R2, strength for the others; each may follow a schedule."""
    assert R1(gamma=10.0).weight(0) == 5
    assert R2(gamma=3.0).weight(10**6) == 1.5
    assert GradientPenalty(strength=10.0).weight(0) == 10
    assert Dragan(strength=7.0).weight(0) == 7
    halving = Linear(start=10.0, end=0.0, kimg=1.0)
    assert R1(gamma=halving).weight(500) == pytest.approx(2.5)
    assert GradientPenalty(strength=halving).weight(500) == pytest.approx(5.0)
    assert Dragan(strength=halving).weight(500) == pytest.approx(5.0)


def test_the_value_does_not_depend_on_the_weight():
    critic, _ = quadratic_critic()
    real, fake = images(4), images(4)
    assert torch.equal(R1(gamma=1.0, every=1)(critic, real, fake), R1(gamma=100.0, every=16)(critic, real, fake))


# ---- batch norm in D ---------------------------------------------------------------------------------------


def with_batch_norm():
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 1))


@every_penalty
def test_batch_norm_breaks_what_a_penalty_on_gradients_promises(penalty):
    """The reason for the warning: another image changes this one's penalty."""
    net, real, fake = with_batch_norm().double(), images(4), images(4)
    other = Batch(torch.cat([real.x[:3], real.x[3:] * 5])), Batch(torch.cat([fake.x[:3], fake.x[3:] * 5]))

    def value(batches):
        torch.manual_seed(1)
        return penalty()(lambda x, y: net(x), *batches)

    assert (value((real, fake)) - value(other))[:3].abs().min() > 1e-4
