"""Low-pass design, and the leaky ReLU between two filters, beside scipy, zero insertion and published numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures import numbers
from torch.testing import assert_close

from equipoise.nn import filtered_lrelu, lowpass, radial_lowpass
from equipoise.nn.lowpass import bessel_j1

# ---- design ----------------------------------------------------------------------------------------------


def test_the_filter_is_scipys_design():
    """With a weak, a middle and a strong window, which Kaiser's formula for β treats apart."""
    signal = pytest.importorskip("scipy.signal")
    for taps, cutoff, width, rate in (
        (12, 2.0, 0.4, 32.0),
        (12, 2.0, 12.0, 32.0),
        (24, 4.0, 8.0, 64.0),
        (7, 3, 25, 32),
    ):
        h = lowpass(taps, cutoff, width, rate)
        assert_close(h, signal.firwin(taps, cutoff, width=width, fs=rate), rtol=0, atol=1e-14)
        assert h.sum() == pytest.approx(1, abs=1e-15)


def test_bessels_function():
    special = pytest.importorskip("scipy.special")
    for x in (np.linspace(0, 40, 500), np.array([0.0]), np.array([[1e-3, 200.0]])):
        assert_close(bessel_j1(x), special.j1(x), rtol=0, atol=1e-14)


def test_the_radial_filter_is_a_disc_of_frequencies():
    """∫ cos(2π k·x) over |k| < f_c by quadrature, times the window; and rounder than the separable filter."""
    taps, cutoff, width, rate = 12, 4.0, 8.0, 32.0
    radial, line = radial_lowpass(taps, cutoff, width, rate), lowpass(taps, cutoff, width, rate)
    n = np.arange(taps) - (taps - 1) / 2
    k, angles = cutoff * (np.arange(400) + 0.5) / 400, 2 * np.pi * (np.arange(200) + 0.5) / 200
    at = np.hypot(n[:, None], n[None, :]).reshape(-1, 1, 1) / rate
    disc = (k[:, None] * np.cos(2 * np.pi * k[:, None] * np.cos(angles) * at)).sum((1, 2)).reshape(taps, taps)
    window = line / np.sinc(2 * cutoff / rate * n)
    wanted = disc * np.outer(window, window)
    assert_close(radial, wanted / wanted.sum(), rtol=0, atol=1e-6)

    def spread(h):  # of the response to waves at the cutoff, in directions from 0 to 45 degrees
        waves = [2j * np.pi * cutoff / rate * (np.cos(a) * n + np.sin(a) * n[:, None]) for a in angles[:25]]
        return np.ptp([(h * np.exp(wave)).sum().real for wave in waves])

    assert spread(radial) < 0.01 < 0.03 < spread(np.outer(line, line))


# ---- the leaky ReLU --------------------------------------------------------------------------------------


def plain(x, up_filter, down_filter, bias, up, down, padding, gain, slope, clamp, flip):
    """By its definition: zeros inserted, filters as 2-D convolutions, samples thrown away."""

    def filtered(x, f):
        f = torch.outer(f, f) if f.ndim == 1 else f
        f = f if flip else f.flip(0, 1)
        return F.conv2d(x, f.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])

    x = x + bias[:, None, None]
    wide = x.new_zeros(*x.shape[:2], x.shape[2] * up, x.shape[3] * up)
    wide[:, :, ::up, ::up] = x
    wide = F.pad(wide, padding)
    h = wide if up_filter is None else filtered(wide, up_filter)
    h = F.leaky_relu(h * up**2, slope) * gain
    h = h if clamp is None else h.clamp(-clamp, clamp)
    h = h if down_filter is None else filtered(h, down_filter)
    return h[:, :, ::down, ::down]


def test_published_numbers():
    """All cases, with the gradient by x of Σ yᵢ cos(i + 0.1)."""
    arrays = numbers("stylegan/ops.npz")
    cases = [case for case in json.loads(str(arrays["config"]))["cases"] if case["op"] == "filtered_lrelu"]
    filters = {key[7:]: torch.from_numpy(a) for key, a in arrays.items() if key.startswith("filter/")}
    assert len(cases) == 7
    for case in cases:
        x = torch.from_numpy(arrays["in/x"]).requires_grad_()
        padding = case["padding"] if isinstance(case["padding"], list) else [case["padding"]] * 4
        y = filtered_lrelu(
            x,
            filters.get(case["fu"]),
            filters.get(case["fd"]),
            torch.tensor(case["bias"]),
            padding=tuple(padding),
            flip=case["flip_filter"],
            **{key: case[key] for key in ("up", "down", "gain", "slope", "clamp")},
        )
        assert_close(y.detach(), torch.from_numpy(arrays[case["out"]]), rtol=0, atol=2e-6)
        (y.flatten() * torch.cos(torch.arange(y.numel()) + 0.1)).sum().backward()
        assert_close(x.grad, torch.from_numpy(arrays[case["grad_on_x"]]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 11), (95, 87), (13, 210)], ids=["small", "large", "both"])
def test_every_way_is_zero_insertion(size):
    """Matrices for short axes and transposed convolutions for long ones, with asymmetric filters, in float64."""
    torch.manual_seed(0)
    x, bias = torch.randn(1, 2, *size, dtype=torch.float64), torch.randn(2, dtype=torch.float64)

    def f(*taps):
        return torch.randn(*taps, dtype=torch.float64)

    for up, down, up_filter, down_filter, padding in (
        (2, 2, f(12), f(12), (9, 8, 9, 8)),
        (4, 2, f(24), f(12, 12), (-2, -5, -2, -5)),
        (4, 2, f(23), f(5), (30, 1, -3, 40)),
        (2, 1, f(4, 3), None, (3, -2, 1, 5)),
        (1, 2, f(5), f(3, 4), (4, 4, 3, 2)),
        (3, 3, f(2), f(6), (7, 5, 6, 6)),
        (1, 1, None, None, (0, 0, 0, 0)),
    ):
        for flip, clamp in ((False, None), (True, 0.7)):
            values = {"gain": 1.3, "slope": 0.1, "clamp": clamp, "flip": flip}
            shape = {"up": up, "down": down, "padding": padding}
            y = filtered_lrelu(x, up_filter, down_filter, bias, **shape, **values)
            assert_close(y, plain(x, up_filter, down_filter, bias, **shape, **values), rtol=1e-11, atol=1e-11)


def test_second_derivatives():
    """By x and by the bias, through both ways, away from the kink."""
    torch.manual_seed(0)
    fu, fd = torch.rand(8, dtype=torch.float64), torch.rand(4, 4, dtype=torch.float64)
    for size in (5, 90):
        x = torch.rand(1, 1, size, 3, dtype=torch.float64, requires_grad=True)
        bias = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)

        def squared(x, bias):
            return filtered_lrelu(x, fu, fd, bias, up=2, down=2, padding=(4, 3, 4, 3)).square().sum()

        (slope,) = torch.autograd.grad(squared(x, bias), x, create_graph=True)
        curves = torch.autograd.grad(slope.square().sum(), (x, bias))
        step = 1e-6
        for at, curve in zip((x, bias), curves, strict=True):
            way = torch.randn_like(at)
            values = []
            for sign in (1, -1):
                moved = [t + sign * step * way if t is at else t for t in (x, bias)]
                (g,) = torch.autograd.grad(squared(*moved), moved[0])
                values.append(g.square().sum())
            assert_close((curve * way).sum(), (values[0] - values[1]) / (2 * step), rtol=1e-5, atol=1e-8)


def test_a_wave_within_the_band_passes():
    """Up, a slope of 1, and down again, gives the wave back inside the map."""
    rate, f = 16, 1.0
    taps = torch.tensor(lowpass(24, 4.0, 4.0, 2 * rate))
    x = torch.cos(2 * math.pi * f / rate * torch.arange(40, dtype=torch.float64)).expand(1, 1, 40, 40).contiguous()
    y = filtered_lrelu(x, taps, taps, up=2, down=2, padding=(23, 22, 23, 22), slope=1.0, gain=1.0)
    assert y.shape == x.shape
    assert_close(y[..., 14:26, 14:26], x[..., 14:26, 14:26], rtol=0, atol=1e-2)
