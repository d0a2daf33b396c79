"""The parametrisation W / σ against PyTorch's spectral norm, whose numbers and buffers are the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.testing import assert_close

from equipoise.weights import SpectralNorm, spectral

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (3, 7)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 6, 6)),
}

layers = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True, params=["as small weights", "as large weights"])
def size(request, monkeypatch):
    """Small weights are divided by PyTorch's operations, large ones by our function."""
    monkeypatch.setattr(spectral, "LARGE", 0 if "large" in request.param else 2**30)


def pair(name, iterations=1, dtype=torch.float64):
    """A layer with our norm, its copy with PyTorch's, both built from one seed, and an input."""
    make, size = LAYERS[name]
    ours, theirs = (copy.deepcopy(layer) for layer in [make().to(dtype)] * 2)
    torch.manual_seed(1)
    SpectralNorm(iterations=iterations)(ours)
    torch.manual_seed(1)
    parametrizations.spectral_norm(theirs, n_power_iterations=iterations)
    return ours, theirs, torch.randn(size, dtype=dtype, requires_grad=True)


@layers
@pytest.mark.parametrize("iterations", [1, 3])
def test_forwards_and_gradients_are_those_of_torch(name, iterations):
    ours, theirs, x = pair(name, iterations)
    for _ in range(3):
        a, b = ours(x), theirs(x)
        assert torch.equal(a, b)
        slope = torch.randn_like(a)
        found = torch.autograd.grad(a, (x, *ours.parameters()), slope)
        expected = torch.autograd.grad(b, (x, *theirs.parameters()), slope)
        assert_close(found, expected, rtol=1e-12, atol=1e-13)
    ours.eval()
    theirs.eval()
    assert torch.equal(ours(x), theirs(x))
    assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)


@layers
def test_two_forwards_before_one_backward_keep_their_own_vectors(name):
    """As D(real) - D(fake): the second forward moves u and v."""
    *both, x = pair(name)
    losses = (layer(x).sin().sum() - layer(x + 1).cos().sum() for layer in both)
    found = (torch.autograd.grad(loss, list(layer.parameters())) for loss, layer in zip(losses, both, strict=True))
    assert_close(*found, rtol=1e-12, atol=1e-13)


@layers
def test_a_penalty_on_gradients_trains_through_it_as_through_torchs(name):
    """The second derivative sees that σ depends on W."""
    *both, x = pair(name)
    found = []
    for layer in both:
        (slope,) = torch.autograd.grad(layer(x).tanh().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), layer.parametrizations.weight.original)[0])
    assert_close(*found, rtol=1e-10, atol=1e-12)


@layers
def test_derivatives_are_numerically_right(name):
    ours, _, _ = pair(name)
    parametrization = ours.parametrizations.weight[0].eval()
    weight = ours.parametrizations.weight.original.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(parametrization, weight)
    assert torch.autograd.gradgradcheck(parametrization, weight, fast_mode=True)


@layers
def test_states_are_exchanged_with_torch(name):
    ours, theirs, x = pair(name)
    for _ in range(2):
        theirs(x)
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), theirs(x))


def test_an_assigned_weight_is_divided_from_then_on():
    layer, _, _ = pair("linear")
    layer.eval()
    with torch.no_grad():
        layer.weight = 3 * torch.eye(5, 7, dtype=torch.float64)
    assert_close(layer.parametrizations.weight.original, 3 * torch.eye(5, 7, dtype=torch.float64))
    u, v = layer.parametrizations.weight[0]._u, layer.parametrizations.weight[0]._v
    assert_close(layer.weight, torch.eye(5, 7, dtype=torch.float64) / (u @ v[:5]))


def test_power_iterations_are_outside_autocast(monkeypatch):
    """GPUs' autocast takes matrix-vector products, which the CPU's does not, so the numbers do not tell here."""
    ours, _, x = pair("convolution", dtype=torch.float32)
    mv, under = torch.mv, []
    monkeypatch.setattr(torch, "mv", lambda *args: under.append(torch.is_autocast_enabled("cpu")) or mv(*args))
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
    assert (y.dtype, under) == (torch.bfloat16, [False] * 3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, of forward mode
def test_it_goes_through_torch_func():
    ours, _, x = pair("linear")
    weights = {name: p.detach() for name, p in ours.eval().named_parameters()}

    def loss(weights, row):
        return torch.func.functional_call(ours, weights, (row,)).square().sum()

    whole = torch.func.grad(loss)(weights, x.detach())
    by_row = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x.detach())
    y = ours(x).square().sum()
    for name, p in ours.named_parameters():
        assert_close(whole[name], torch.autograd.grad(y, p, retain_graph=True)[0])
        assert_close(by_row[name].sum(0), whole[name])
    change = {name: torch.randn_like(p) for name, p in weights.items()}
    _, forward = torch.func.jvp(lambda w: loss(w, x.detach()), (weights,), (change,))
    assert_close(forward, sum((whole[name] * change[name]).sum() for name in whole))


def test_compiled_it_is_the_same():
    ours, theirs, x = pair("convolution")
    compiled = torch.compile(ours, backend="aot_eager")
    for _ in range(2):
        a, b = compiled(x), theirs(x)
        assert_close(a, b)
        gradients = (
            torch.autograd.grad(a.sum(), list(ours.parameters())),
            torch.autograd.grad(b.sum(), list(theirs.parameters())),
        )
        assert_close(*gradients)
