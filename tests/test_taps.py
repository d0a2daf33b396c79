"""Weights' gradients tap by tap, against PyTorch's own convolutions and numerical derivatives."""

from __future__ import annotations

import torch
from loops import loop_over
from torch.testing import assert_close

from equipoise.compute.convolutions import Convolution, by_taps
from equipoise.compute.taps import weight_gradient

CASES = {
    "deep layer of D": (Convolution(False, (2, 2), (1, 1)), 4, (6, 6)),
    "same size": (Convolution(False, (1, 1), (1, 1)), 3, (5, 4)),
    "strides and paddings apart": (Convolution(False, (2, 3), (0, 2)), 3, (7, 5)),
    "taps that read only padding": (Convolution(False, (2, 2), (2, 2)), 3, (2, 1)),
    "pixels that no tap reads": (Convolution(False, (3, 3), (0, 0)), 2, (6, 7)),
    "one tap": (Convolution(False, (1, 1), (0, 0)), 1, (3, 3)),
    "transposed": (Convolution(True, (2, 2), (1, 1)), 4, (3, 5)),
    "transposed, one more pixel": (Convolution(True, (2, 2), (1, 1), (1, 1)), 3, (4, 4)),
    "transposed, gaps": (Convolution(True, (3, 2), (0, 1), (1, 0)), 2, (4, 4)),
}

cases = loop_over("name", CASES)


def tensors(name):
    """x, w and bias in float64, each with a gradient, for 2 images, 3 channels in and 5 out."""
    convolution, kernel, size = CASES[name]
    channels = (3, 5) if convolution.transposed else (5, 3)
    shapes = (2, 3, *size), (*channels, kernel, kernel), (5,)
    return convolution, [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]


@cases
def test_gradients_are_those_of_the_convolution(name):
    convolution, given = tensors(name)
    y, expected = by_taps(convolution, *given), convolution(*given)
    assert torch.equal(y, expected)
    slope = torch.randn_like(y)
    for a, b in zip(torch.autograd.grad(y, given, slope), torch.autograd.grad(expected, given, slope), strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-12)


@cases
def test_it_can_be_differentiated_again(name):
    convolution, given = tensors(name)
    assert torch.autograd.gradcheck(lambda *t: by_taps(convolution, *t), given, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: by_taps(convolution, *t), given, fast_mode=True)


def test_only_what_is_asked_for_is_computed(monkeypatch):
    """G's update needs no gradient of D's weights, nor D's first layer one of its images."""
    convolution, (x, w, bias) = tensors("deep layer of D")
    plain = torch.autograd.grad(convolution(x, w, bias).square().sum(), (x, w, bias))
    for i, t in enumerate((x, w, bias)):
        alone = [s if s is t else s.detach() for s in (x, w, bias)]
        assert_close(torch.autograd.grad(by_taps(convolution, *alone).square().sum(), t)[0], plain[i])
    monkeypatch.setattr("equipoise.compute.taps.weight_gradient", None)  # which would fail
    torch.autograd.grad(by_taps(convolution, x, w.detach()).sum(), x)


@loop_over("layout", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_lies_in_memory_as_the_weight_and_is_as_wide(layout):
    x = torch.randn(2, 3, 6, 6, dtype=torch.bfloat16).contiguous(memory_format=layout)
    w = torch.randn(5, 3, 4, 4).contiguous(memory_format=layout).requires_grad_()
    (slope,) = torch.autograd.grad(by_taps(CASES["deep layer of D"][0], x, w).sum(), w)
    assert (slope.dtype, slope.stride()) == (torch.float32, w.stride())


def test_second_derivatives_in_bfloat16_reach_a_float32_weight():
    convolution, given = tensors("deep layer of D")
    found = []
    for way in (by_taps, Convolution.__call__):
        x, w, _ = (t.detach().float().requires_grad_() for t in given)
        with torch.autocast("cpu", torch.bfloat16):
            y = way(convolution, x.bfloat16(), w, None)
        (slope,) = torch.autograd.grad(y.float().sin().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), w)[0])
    assert found[0].norm() > 1
    assert (found[0] - found[1]).norm() < 0.02 * found[1].norm()


@loop_over("transform", ["grad by the input", "grad by the weight", "of each image"])
def test_it_goes_through_torch_func(transform):
    convolution, (x, w, bias) = tensors("deep layer of D")

    def value(way, x, w):
        return way(convolution, x, w, bias.detach()).sin().sum()

    match transform:
        case "grad by the input":
            found, expected = (torch.func.grad(value, 1)(way, x, w) for way in (by_taps, Convolution.__call__))
        case "grad by the weight":
            found, expected = (torch.func.grad(value, 2)(way, x, w) for way in (by_taps, Convolution.__call__))
        case "of each image":
            found, expected = (
                torch.func.vmap(lambda image, way=way: torch.func.grad(value, 2)(way, image[None], w))(x)
                for way in (by_taps, Convolution.__call__)
            )
    assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_one_tap_by_hand():
    small, large = torch.randn(3, 2, 2, 2), torch.randn(3, 4, 5, 5)
    found = weight_gradient(small, large, (3, 3), (2, 2), (1, 1))
    assert found.shape == (2, 4, 3, 3)
    by_hand = sum(
        small[n, 1, h, k] * large[n, 2, 2 * h - 1, 2 * k + 1]
        for n in range(3)
        for h in range(2)
        for k in range(2)
        if h > 0  # row -1 is padding
    )
    assert_close(found[1, 2, 0, 2], by_hand)
