"""Depthwise convolutions of fixed weights beside PyTorch's own, through all derivatives."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from equipoise.nn.fixed import fixed_convolution

SHAPES = list(itertools.product(((1, 1), (2, 2), (1, 2)), ((0, 0), (1, 2), (4, 4)), (1, 3)))
"""Strides, paddings (more than the kernel, too), kernels for each channel."""


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(2, 3, 9, 8, dtype=torch.float64, requires_grad=True)


def weight(kernels):
    return torch.randn(3 * kernels, 1, 4, 3, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by torch.func.jvp itself
def test_it_is_torchs_convolution_with_its_derivatives(x):
    for stride, padding, kernels in SHAPES:
        w = weight(kernels)

        def ours(x, of=(w, stride, padding)):
            return fixed_convolution(x, *of)

        y, wanted = ours(x), F.conv2d(x, w, None, stride, padding, groups=3)
        assert torch.equal(y, wanted)
        (by_ours,), (by_torch,) = (torch.autograd.grad(out.square().sum(), x) for out in (y, wanted))
        assert_close(by_ours, by_torch, rtol=1e-12, atol=1e-12)
        assert gradcheck(ours, x, fast_mode=True)
        assert gradgradcheck(ours, x, fast_mode=True)
        _, forward = torch.func.jvp(ours, (x.detach(),), (x.detach(),))
        assert_close(forward, wanted.detach(), rtol=1e-12, atol=1e-12)  # it is linear
        by_image = torch.func.vmap(torch.func.grad(lambda image: ours(image[None]).square().sum()))(x.detach())
        assert_close(by_image, by_torch, rtol=1e-12, atol=1e-12)


def test_a_second_derivative_makes_no_gradient_of_the_weights(x):
    """Torch's own does, group by group: three convolutions more here, hundreds in a discriminator."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        (gradient,) = torch.autograd.grad(
            fixed_convolution(x, weight(1), (1, 1), (2, 1)).square().sum(), x, create_graph=True
        )
        gradient.square().sum().backward()
    names = [event.name for event in profile.events()]
    assert not any("double_backward" in name for name in names)
    assert names.count("aten::conv2d") == 4  # y, its transpose, and one more of each for the second derivative


def test_in_bfloat16_strides_are_undone_in_float32():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    w = torch.rand(4, 1, 4, 4, dtype=torch.bfloat16)
    y = fixed_convolution(x, w, (2, 2), (1, 1))
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy)
    wanted = F.conv_transpose2d(dy.float(), w.float(), stride=2, padding=1, groups=4)
    assert dx.dtype == torch.bfloat16
    assert torch.equal(dx, wanted.bfloat16())


def test_autocast_leaves_gradients_that_differentiate_again():
    """The convolution narrows its input, and gradients are narrower than the weights."""
    torch.manual_seed(0)
    x, w = torch.randn(1, 2, 8, 8, requires_grad=True), torch.rand(2, 1, 4, 4)

    def derivatives(f):
        with torch.autocast("cpu", torch.bfloat16):
            y = f(x)
        (first,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return y, first.detach(), second

    for stride in ((1, 1), (2, 2)):
        ours = derivatives(lambda x, s=stride: fixed_convolution(x, w, s, (1, 1)))
        theirs = derivatives(lambda x, s=stride: F.conv2d(x, w, None, s, (1, 1), groups=2))
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b, rtol=0.03, atol=0.03 * float(b.detach().abs().max()))
