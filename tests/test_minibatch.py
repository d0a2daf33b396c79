"""Layers that compare the images of a batch, against loops over them."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.types import Batch
from equipoise.losses import R1
from equipoise.models import Head
from equipoise.nn import Discriminator, MinibatchDiscrimination, MinibatchStd

# ---- minibatch discrimination --------------------------------------------------------------------------------


def test_minibatch_discrimination_is_the_papers_sum():
    """o(x_i)_b = Σ_j exp(-‖M_ib - M_jb‖₁) in three loops, j = i included, appended to the features."""
    layer, h = MinibatchDiscrimination(5, kernels=3, dims=2).double(), torch.randn(4, 5, dtype=torch.float64)
    out = layer(h)
    assert out.shape == (4, 5 + 3)
    assert torch.equal(out[:, :5], h)
    T = layer.T.weight.T.reshape(5, 3, 2)  # A x B x C
    for i in range(4):
        for b in range(3):
            o = 0
            for j in range(4):
                o += (-((h[i] @ T[:, b]) - (h[j] @ T[:, b])).abs().sum()).exp()
            assert_close(out[i, 5 + b], o)


def test_minibatch_discrimination_sees_collapse():
    layer, x = MinibatchDiscrimination(5, kernels=3), torch.randn(1, 5)
    assert_close(layer(x.expand(7, 5))[:, 5:], torch.full((7, 3), 7.0))
    far = layer(1000 * torch.randn(7, 5))[:, 5:]
    assert_close(far, torch.ones(7, 3))


def test_permuting_the_batch_permutes_minibatch_discrimination():
    layer, h, order = MinibatchDiscrimination(5), torch.randn(4, 5), torch.tensor([2, 0, 3, 1])
    assert_close(layer(h[order]), layer(h)[order])


def test_minibatch_discrimination_has_numerical_derivatives():
    layer = MinibatchDiscrimination(3, kernels=2, dims=2).double()
    h = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, h)
    assert torch.autograd.gradgradcheck(layer, h)


def test_minibatch_discrimination_takes_features():
    with pytest.raises(ValueError, match=r"features \(N, F\), got \(2, 5, 3, 3\); flatten"):
        MinibatchDiscrimination(5)(torch.randn(2, 5, 3, 3))


# ---- minibatch standard deviation ----------------------------------------------------------------------------


@loop_over(("n", "group_size", "new_channels"), [(8, 4, 1), (6, 3, 2), (3, 4, 1), (6, 2, 3), (1, 4, 1)])
def test_minibatch_std_of_each_group(n, group_size, new_channels):
    """Image i is in group i mod (N/G); new channel c is of the c-th block of features."""
    h = torch.randn(n, 6, 3, 2, dtype=torch.float64)
    out = MinibatchStd(group_size, new_channels)(h)
    assert out.shape == (n, 6 + new_channels, 3, 2)
    assert torch.equal(out[:, :6], h)
    groups = n // min(group_size, n)
    block = 6 // new_channels
    for i in range(n):
        members = [j for j in range(n) if j % groups == i % groups]
        assert len(members) == min(group_size, n)
        for c in range(new_channels):
            deviations = []
            for f in range(c * block, (c + 1) * block):
                for position in range(6):
                    values = [h[j, f].flatten()[position].item() for j in members]
                    mean = sum(values) / len(values)
                    variance = sum((v - mean) ** 2 for v in values) / len(values)
                    deviations.append((variance + 1e-8) ** 0.5)
            expected = torch.full((3, 2), sum(deviations) / len(deviations), dtype=torch.float64)
            assert_close(out[i, 6 + c], expected)


def test_minibatch_std_sees_collapse():
    x = torch.randn(1, 6, 3, 2).expand(8, -1, -1, -1)
    layer = MinibatchStd()
    assert_close(layer(x)[:, 6], torch.full((8, 3, 2), 1e-4))
    assert layer(torch.randn(8, 6, 3, 2))[:, 6].min() > 0.1
    assert_close(layer(x.half())[:, 6].float(), torch.full((8, 3, 2), 1e-4), rtol=0.01, atol=0)  # 1e-8 is 0 in float16


def test_minibatch_std_has_numerical_derivatives():
    h = torch.randn(4, 2, 2, 1, dtype=torch.float64, requires_grad=True)
    layer = MinibatchStd(group_size=2, new_channels=2)
    assert torch.autograd.gradcheck(layer, h)
    assert torch.autograd.gradgradcheck(layer, h)


def test_batches_that_do_not_fit_the_groups_are_refused():
    with pytest.raises(ValueError, match=r"new_channels=4\) got 6 features: give a multiple of 4$"):
        MinibatchStd(new_channels=4)(torch.randn(8, 6, 3, 2))
    for group_size, images in ((4, 6), (3, 8)):
        told = f"got {images} images, .*: set batch_size to a multiple of {group_size} times the number of processes$"
        with pytest.raises(ValueError, match=told):
            MinibatchStd(group_size)(torch.randn(images, 6, 3, 2))


# ---- both, inside a discriminator ----------------------------------------------------------------------------


def with_discrimination():
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), MinibatchDiscrimination(64, kernels=8, dims=3))
    return Discriminator(body, Head().factory(0)(72))


def with_std():
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), MinibatchStd(), nn.Conv2d(5, 8, 3), nn.Tanh(), nn.Flatten())
    return Discriminator(body, Head().factory(0)(32))


@loop_over("make", [with_discrimination, with_std])
@loop_over("collapsed", [False, True], ids=["spread", "collapsed"])
def test_r1_through_a_comparing_layer(make, collapsed):
    """Its gradient reaches every weight, and is finite where all images are one."""
    D, x = make(), torch.randn(8, 1, 6, 6)
    x = x[:1].expand_as(x).contiguous() if collapsed else x
    (R1()(lambda x, y: D(x, y).fun, Batch(x), Batch(x)).mean() + D(x).fun.square().mean()).backward()
    for name, p in D.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0 or (collapsed and name == "body.3.T.weight"), name


def test_bfloat16_is_exact_but_for_its_rounding():
    """Standard deviations and sums of exponentials in bfloat16 would be off by more."""
    h = 10 + torch.randn(8, 6, 3, 2).bfloat16()
    out = MinibatchStd()(h)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), MinibatchStd()(h.double()), rtol=2**-8, atol=0)

    features, kernels = torch.randn(64, 6).bfloat16(), MinibatchDiscrimination(6).bfloat16()
    out = kernels(features)
    assert out.dtype == torch.bfloat16
    M = kernels.T(features).double().unflatten(1, (100, 5))  # rounded to bfloat16, as its product is
    o = (-torch.cdist(*[M.transpose(0, 1)] * 2, p=1)).exp().sum(2).T
    assert_close(out[:, 6:].double(), o, rtol=2**-8, atol=0)
