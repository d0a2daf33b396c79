"""Consensus optimisation: closed forms of games that can be solved by hand, and a game that converges only with it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.schedules import Linear
from equipoise.losses import (
    R1,
    Consensus,
    Hinge,
    JointPenalty,
    NonSaturating,
    Wasserstein,
    discriminator_loss,
    generator_loss,
)
from equipoise.weights import SpectralNorm

consensus = Consensus()
NON_SATURATING = NonSaturating()


def scalars(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]


# ---- games on the plane ----------------------------------------------------------------------------------


def bilinear(x, y):
    """D maximises xy by x, G minimises it by y."""
    return -x * y, x * y


def dirac(psi, theta):
    """The Dirac-GAN of Mescheder et al. 2018: data at 0, G at theta, D(x) = psi x; the minimax loss."""
    return F.softplus(-psi * 0) + F.softplus(psi * theta), -F.softplus(psi * theta)


def test_the_bilinear_game():
    """v = (-y, x): ‖v‖² = x² + y², and the gradient of its half is the place itself."""
    x, y = scalars(0.7, -1.2)
    value = consensus(*bilinear(x, y), [x], [y])
    assert value.shape == ()
    assert value.item() == pytest.approx(0.7**2 + 1.2**2, rel=1e-12)
    assert_close(torch.stack(torch.autograd.grad(value / 2, (x, y))), torch.tensor([0.7, -1.2]).double())


@loop_over(("psi", "theta"), [(0.5, 0.8), (-1.3, 0.2), (2.0, -1.5), (0.0, 0.4)])
def test_the_dirac_gan(psi, theta):
    """v = s(ψθ) (θ, -ψ), so ½‖v‖² = ½ s² (ψ² + θ²), with the gradient s s' (ψ² + θ²) (θ, ψ) + s² (ψ, θ)."""
    a, b = scalars(psi, theta)
    value = consensus(*dirac(a, b), [a], [b])
    s, square = 1 / (1 + math.exp(-psi * theta)), psi**2 + theta**2
    assert value.item() == pytest.approx(s**2 * square, rel=1e-12)
    slope = s * s * (1 - s) * square
    wanted = slope * theta + s**2 * psi, slope * psi + s**2 * theta
    assert_close(torch.stack(torch.autograd.grad(value / 2, (a, b))), torch.tensor(wanted).double())


@loop_over("game", [bilinear, dirac])
def test_the_gradient_is_the_transposed_jacobian_times_the_field(game):
    """∇ ½‖v‖² = v'ᵀ v, v' by differences of v, which autograd does not make."""

    def field(point):
        a, b = scalars(*point.tolist())
        d, g = game(a, b)
        (v_d,), (v_g,) = torch.autograd.grad(d, a, retain_graph=True), torch.autograd.grad(g, b)
        return torch.stack([v_d, v_g])

    at, h = torch.tensor([0.9, -0.4], dtype=torch.float64), 1e-6
    columns = [(field(at + h * e) - field(at - h * e)) / (2 * h) for e in torch.eye(2, dtype=torch.float64)]
    jacobian = torch.stack(columns, 1)
    a, b = scalars(*at.tolist())
    found = torch.autograd.grad(consensus(*game(a, b), [a], [b]) / 2, (a, b))
    assert_close(torch.stack(found), jacobian.T @ field(at), rtol=1e-6, atol=1e-9)


def radii(game, gamma: float, steps: int = 300, lr: float = 0.1, *, alternating: bool = False) -> list[float]:
    """Distances from the equilibrium under gradient descent from (1, 1), both players at once or in turn."""
    penalty = Consensus(gamma=gamma)
    point = scalars(1.0, 1.0)
    found = []
    for _ in range(steps):
        for movers in ((0,), (1,)) if alternating else ((0, 1),):
            losses = game(*point)
            value = penalty.weight(0) * penalty(*losses, point[:1], point[1:])
            moves = [torch.autograd.grad(losses[i] + value, point[i], retain_graph=True)[0] for i in movers]
            with torch.no_grad():
                for i, move in zip(movers, moves, strict=True):
                    point[i] -= lr * move
        found.append(math.hypot(*(p.item() for p in point)))
    return found


def test_gradient_descent_diverges_from_the_bilinear_game_without_it_and_converges_with_it():
    """A step multiplies the radius by √(1 + lr²) without it, and by √((1 - lr gamma)² + lr²) with it."""
    start = math.sqrt(2)
    assert radii(bilinear, 0.0)[-1] == pytest.approx(start * 1.01**150, rel=1e-9)
    assert radii(bilinear, 1.0)[-1] == pytest.approx(start * (0.9**2 + 0.01) ** 150, rel=1e-9)
    assert radii(bilinear, 1.0)[-1] < 1e-9


def test_players_in_turn_circle_without_it_and_converge_with_it():
    """As the trainer updates them."""
    circling = radii(bilinear, 0.0, alternating=True)
    assert 1 < min(circling) < max(circling) < 2
    assert radii(bilinear, 1.0, alternating=True)[-1] < 1e-9


def test_the_dirac_gan_too():
    """Whose eigenvalues are ±i/2 at the equilibrium, -gamma/4 ± i/2 with it (Mescheder et al. 2018)."""
    assert radii(dirac, 0.0)[-1] > math.sqrt(2)
    last = radii(dirac, 1.0, steps=400)
    assert last[-1] < 1e-3
    rate = math.hypot(1 - 0.1 / 4, 0.1 / 2)
    assert last[-1] / last[-101] == pytest.approx(rate**100, rel=1e-2)


# ---- networks --------------------------------------------------------------------------------------------


def players(normalizer=None):
    """D on points, G from one number; smooth, in float64."""
    D = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    G = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    if normalizer is not None:
        normalizer(D)
    return D, G


def losses(D, G, loss=NON_SATURATING):
    real, z = torch.randn(5, 2).double() + 1, torch.randn(5, 1).double()
    return lambda: (discriminator_loss(loss, D(real), D(G(z))), generator_loss(loss, D(G(z)), D(real)))


def test_second_derivatives_of_networks_are_right():
    D, G = players()
    compute, weights = losses(D, G), [*D.parameters(), *G.parameters()]

    def value(*_):
        return consensus(*compute(), list(D.parameters()), list(G.parameters()))

    assert torch.autograd.gradcheck(value, weights)


def test_it_is_the_squared_norm_of_what_the_optimisers_get():
    D, G = players()
    compute = losses(D, G)
    d_loss, g_loss = compute()
    d_loss.backward(inputs=list(D.parameters()), retain_graph=True)
    g_loss.backward(inputs=list(G.parameters()))
    gradients = torch.cat([p.grad.flatten() for p in (*D.parameters(), *G.parameters())])
    assert_close(consensus(*compute(), list(D.parameters()), list(G.parameters())), gradients @ gradients)


def test_both_players_have_the_same_penalty():
    """It knows no order: D's and G's are one number, and each differentiates it by its own weights."""
    D, G = players()
    d_loss, g_loss = losses(D, G)()
    d_weights, g_weights = list(D.parameters()), list(G.parameters())
    value = consensus(d_loss, g_loss, d_weights, g_weights)
    assert_close(consensus(g_loss, d_loss, g_weights, d_weights), value, rtol=1e-14, atol=0)
    value.backward(inputs=d_weights)
    assert all(p.grad is None for p in g_weights)
    assert any(p.grad.abs().sum() > 0 for p in d_weights)


@loop_over("loss", [Hinge(), Wasserstein()])
def test_under_spectral_norm_and_with_weights_that_a_loss_does_not_read(loss):
    D, G = players(SpectralNorm())
    unread = nn.Parameter(torch.ones(3).double())
    value = consensus(*losses(D, G, loss)(), list(D.parameters()), [unread, *G.parameters()])
    value.backward()
    assert value > 0
    assert unread.grad is None
    for net in (D, G):
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().sum() > 0 for gradient in gradients)


def test_losses_that_were_cut_from_a_network_are_refused():
    """v would be right and its gradient wrong: what makes the game converge is how v_D changes with G."""
    D, G = players()
    d_weights, g_weights = list(D.parameters()), list(G.parameters())
    real, z = torch.randn(5, 2).double(), torch.randn(5, 1).double()
    d_loss, g_loss = losses(D, G)()
    cut = discriminator_loss(NON_SATURATING, D(real), D(G(z).detach()))
    with pytest.raises(ValueError, match=r"D's loss does not reach the weights of G.*no detach"):
        consensus(cut, g_loss, d_weights, g_weights)
    with pytest.raises(ValueError, match=r"G's loss does not reach the weights of D"):
        consensus(d_loss, g_loss.detach(), d_weights, g_weights)
    D.requires_grad_(False)
    with pytest.raises(ValueError, match=r"D's loss does not reach the weights of D"):
        consensus(*losses(D, G)(), d_weights, g_weights)
    with pytest.raises(ValueError, match=r"must be scalars, got shapes \(\) and \(5,\): take their means"):
        consensus(d_loss, torch.ones(5), d_weights, g_weights)


def test_as_a_config():
    assert repr(Consensus()) == "Consensus(gamma=10.0, every=1)"
    assert isinstance(Consensus(), JointPenalty)
    assert not isinstance(R1(), JointPenalty)
    assert Consensus(gamma=3.0).weight(0) == 1.5
    assert Consensus(gamma=Linear(start=4.0, end=0.0, kimg=1)).weight(500) == 1.0
    for bad in ({"gamma": -1.0}, {"every": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Consensus(**bad)
