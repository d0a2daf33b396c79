"""SAGAN's self-attention against its equations written out, position by position."""

from __future__ import annotations

import copy

import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from equipoise.nn import SelfAttention, attention_maps
from equipoise.nn.attention import attend
from equipoise.weights import SpectralNorm, remove

F, H, W = 16, 4, 6
Q, K = H * W, H * W // 4


def layer(features=F, gamma=0.7, dtype=torch.float64):
    """With gamma open."""
    torch.manual_seed(0)
    attention = SelfAttention(features).to(dtype)
    nn.init.constant_(attention.gamma, gamma)
    return attention


def images(n=2, dtype=torch.float64):
    return torch.randn(n, F, H, W, dtype=dtype, generator=torch.Generator().manual_seed(1))


def written_out(attention, x):
    """y = x + γ W_o Σ_i softmax_i(<f_i, g_j>) h_i, one position j after the other; f and h are maxima of 2x2 blocks."""

    def at(conv, i, j, n):
        return conv.weight[:, :, 0, 0] @ x[n, :, i, j]

    def block(conv, i, j, n):
        corners = [at(conv, 2 * i + a, 2 * j + b, n) for a in (0, 1) for b in (0, 1)]
        return torch.stack(corners).amax(0)

    rows, beta = [], []
    for n in range(len(x)):
        places = [(i, j) for i in range(H // 2) for j in range(W // 2)]
        f = torch.stack([block(attention.key, i, j, n) for i, j in places])
        h = torch.stack([block(attention.value, i, j, n) for i, j in places])
        for i in range(H):
            for j in range(W):
                scores = f @ at(attention.query, i, j, n)
                share = scores.exp() / scores.exp().sum()
                beta.append(share)
                rows.append(x[n, :, i, j] + attention.gamma * (attention.out.weight[:, :, 0, 0] @ (share @ h)))
    return torch.stack(rows).view(len(x), H, W, -1).movedim(3, 1), torch.stack(beta).view(len(x), Q, K)


def test_the_equations():
    attention, x = layer(), images()
    y, beta = written_out(attention, x)
    assert_close(attention(x), y)
    with torch.no_grad():
        assert_close(attention(x), y)
    assert (y - x).abs().max() > 0.1
    assert beta.amax(2).max() > 2 / K  # far from the mean of all positions


def test_the_channels():
    """F/8 for queries and keys, F/2 for values, no bias; at least one of each."""
    for features, inner, values in ((64, 8, 32), (16, 2, 8), (4, 1, 2), (1, 1, 1)):
        attention = SelfAttention(features)
        shapes = {n: tuple(p.shape) for n, p in attention.named_parameters()}
        assert shapes == {
            "gamma": (),
            "query.weight": (inner, features, 1, 1),
            "key.weight": (inner, features, 1, 1),
            "value.weight": (values, features, 1, 1),
            "out.weight": (features, values, 1, 1),
        }
        assert attention(torch.randn(1, features, 2, 2)).shape == (1, features, 2, 2)


def test_it_starts_as_the_identity():
    attention, x = SelfAttention(F), images(dtype=torch.float32)
    y = attention(x)
    assert torch.equal(y, x)
    (y * torch.randn_like(y)).sum().backward()
    assert attention.gamma.grad != 0
    assert all((p.grad == 0).all() for n, p in attention.named_parameters() if n != "gamma")


def test_gradients_are_those_of_the_equations():
    """In every weight and in x; and those of ‖∇_x‖², which R1 needs."""
    attention, x = layer(), images().requires_grad_(True)
    names = [*dict(attention.named_parameters())]
    weights = [*attention.parameters()]
    test = torch.randn(2, F, H, W, dtype=torch.float64)

    def both(y):
        first = torch.autograd.grad((y * test).sum(), [x, *weights], retain_graph=True)
        (slope,) = torch.autograd.grad((y * test).sum(), x, create_graph=True)
        return first, torch.autograd.grad(slope.square().sum(), [x, *weights])

    for found, wanted in zip(both(attention(x)), both(written_out(attention, x)[0]), strict=True):
        for name, a, b in zip(["x", *names], found, wanted, strict=True):
            assert b.abs().max() > 1e-6, name
            assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_it_may_be_differentiated_twice():
    q, k = (torch.randn(2, n, 2, dtype=torch.float64, requires_grad=True) for n in (5, 3))
    v = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (q, k, v))
    assert torch.autograd.gradgradcheck(attend, (q, k, v))


@loop_over("trained", ["query", "value", "none"])
def test_what_is_frozen_gets_no_gradient(trained):
    """As D's weights in G's step, and first layers that a transfer keeps."""
    attention, x = layer(), images().requires_grad_(trained == "none")
    for name, p in attention.named_parameters():
        p.requires_grad_(name.startswith(trained))
    inputs = [x] if trained == "none" else [p for p in attention.parameters() if p.requires_grad]
    y, wanted = attention(x), written_out(attention, x)[0]
    for create_graph in (False, True):
        found = torch.autograd.grad(y.square().sum(), inputs, create_graph=create_graph, retain_graph=True)
        assert_close(found, torch.autograd.grad(wanted.square().sum(), inputs, retain_graph=True))
    assert all(p.grad is None for p in attention.parameters())


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor):
                self.numbers = max(self.numbers, t.numel())
        return out


def test_the_weights_are_never_stored():
    """1024 queries by 256 keys are made only for a map that is read, and for a gradient of a gradient."""
    attention = layer(32, dtype=torch.float32)
    x = torch.randn(1, 32, 32, 32, requires_grad=True)
    with Largest() as plain:
        attention(x).sum().backward()
        with torch.no_grad():
            attention(x)
    assert plain.numbers <= x.numel()
    with Largest() as read:
        attention_maps(attention, x)
    with Largest() as twice:
        (slope,) = torch.autograd.grad(attention(x).sum(), x, create_graph=True)
        slope.square().sum().backward()
    assert read.numbers == twice.numbers == 1024 * 256


def test_maps_can_be_read():
    """By the protocol of `attention_maps`: a name, the weights of each query, the same output while they are read."""
    net = nn.Sequential(nn.Identity(), layer())
    x = images()
    y, beta = written_out(net[1], x)
    maps = attention_maps(net, x)
    assert list(maps) == ["1.map"]
    assert_close(maps["1.map"], beta)
    seen = []
    hook = net[1].map.register_forward_hook(lambda module, args, out: seen.append(out))
    assert_close(net(x), y)
    hook.remove()
    assert len(seen) == 1
    assert_close(net(x), y)


def test_bfloat16_agrees():
    attention, x = layer(dtype=torch.float32), images(dtype=torch.float32)
    exact = attention(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = attention(x)
        read = attention_maps(attention, x)["map"]
    assert_close(rough.float(), exact, rtol=0.02, atol=0.02)
    assert_close(read.float().sum(2), torch.ones(2, Q), rtol=0.01, atol=0.01)
    (rough.float() * x).sum().backward()
    grads = [p.grad for p in attention.parameters()]
    attention.zero_grad()
    (exact * x).sum().backward()
    for rough_grad, p in zip(grads, attention.parameters(), strict=True):
        assert_close(rough_grad, p.grad, rtol=0.1, atol=0.05 * p.grad.abs().max().item())


def test_normalisers_copies_and_the_meta_device():
    attention, x = layer(dtype=torch.float32), images(dtype=torch.float32)
    SpectralNorm(iterations=50)(attention)
    normal = {n for n, m in attention.named_modules() if hasattr(m, "parametrizations")}
    assert normal == {"query", "key", "value", "out"}
    attention(x)
    attention.eval()
    assert_close(torch.linalg.matrix_norm(attention.value.weight[:, :, 0, 0], 2).item(), 1.0, rtol=1e-3, atol=0)
    plain = remove(copy.deepcopy(attention))
    assert_close(plain(x), attention(x))
    with torch.device("meta"):
        assert SelfAttention(F)(torch.randn(2, F, H, W)).shape == (2, F, H, W)
