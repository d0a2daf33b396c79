"""Colour, filtering and corruption: against the paper's matrices, HSV, closed forms and documented distributions."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import torch
from loops import loop_over
from scipy import stats
from torch.testing import assert_close

from equipoise.augment.color import color_matrix, recolor
from equipoise.augment.corruption import corrupt, hole
from equipoise.augment.draws import Draws
from equipoise.augment.filters import POWER, band_filter, band_gains
from equipoise.augment.wavelets import band_kernels

P = 0.01  # level of every statistical test; seeds are fixed, so a test that passes once always does


def draws(x, p=1.0):
    return Draws(torch.tensor(p), x)


def color_maps(n, p=1.0):
    """What `recolor` does to colours, read off at black, red, green and blue -> A (n, 3, 3), offset (n, 3)."""
    x = torch.zeros(n, 3, 2, 2, dtype=torch.float64)
    for i, (row, column) in enumerate(((0, 1), (1, 0), (1, 1))):
        x[:, i, row, column] = 1
    y = recolor(x, draws(x, p)).flatten(2)  # (n, 3, 4)
    return y[:, :, 1:] - y[:, :, :1], y[:, :, 0]


def numbers(A, offset):
    """Brightness, contrast, flip, hue and saturation of maps, (n,) each, seen along and across the grey axis."""
    v = torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64)
    u = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    w = torch.linalg.cross(v, u)
    along = torch.einsum("i,nij,j->n", v, A, v)
    cos, sin = torch.einsum("i,nij,j->n", u, A, u), torch.einsum("i,nij,j->n", w, A, u)
    contrast = along.abs()
    return offset.mean(1) / along, contrast, along.sign(), torch.atan2(sin, cos), torch.hypot(sin, cos) / contrast


# ---- colour -----------------------------------------------------------------------------------------------------


def test_color_is_the_papers_product_of_five_matrices():
    """Translation, scaling, Householder reflection, Rodrigues rotation and saturation, multiplied one by one."""
    A, offset = color_maps(20)
    v = np.ones(3) / math.sqrt(3)
    P_grey = np.outer(v, v)
    for a, o, b, c, flip, hue, s in zip(A, offset, *numbers(A, offset), strict=True):
        K = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
        linear = [
            c.item() * np.eye(3),
            np.eye(3) - 2 * P_grey * (flip.item() < 0),
            np.eye(3) + math.sin(hue) * K + (1 - math.cos(hue)) * K @ K,
            P_grey + s.item() * (np.eye(3) - P_grey),
        ]
        C = np.eye(4)
        C[:3, 3] = b.item()
        for factor in linear:
            step = np.eye(4)
            step[:3, :3] = factor
            C = step @ C
        assert_close(a.numpy(), C[:3, :3], rtol=0, atol=1e-12)
        assert_close(o.numpy(), C[:3, 3], rtol=0, atol=1e-12)


def test_color_has_the_documented_distributions():
    n = 4000
    A, offset = color_maps(n)
    brightness, contrast, flip, hue, saturation = numbers(A, offset)
    assert stats.kstest(brightness, stats.norm(scale=0.2).cdf).pvalue > P
    assert stats.kstest(contrast.log2(), stats.norm(scale=0.5).cdf).pvalue > P
    assert stats.kstest(hue, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > P
    assert stats.kstest(saturation.log2(), stats.norm(scale=1).cdf).pvalue > P
    assert stats.binomtest(int((flip < 0).sum()), n).pvalue > P
    assert stats.binomtest(int((flip > 0).sum()), n).pvalue > P
    independent = torch.corrcoef(torch.stack([brightness, contrast.log2(), flip, hue, saturation.log2()]))
    assert (independent - torch.eye(5)).abs().max() < 4 / math.sqrt(n)
    sizes = torch.corrcoef(torch.stack([brightness.abs().log(), contrast.log()]))
    assert sizes[0, 1].abs() < 4 / math.sqrt(n)  # brightness is added before contrast multiplies, and not after it


def test_each_color_transform_fires_with_probability_p():
    n, p = 4000, 0.3
    brightness, contrast, flip, hue, saturation = numbers(*color_maps(n, p))
    fires = [brightness.abs() > 1e-9, (contrast - 1).abs() > 1e-9, hue.abs() > 1e-9, (saturation - 1).abs() > 1e-9]
    for one in fires:
        assert stats.binomtest(int(one.sum()), n, p).pvalue > P
    assert stats.binomtest(int((flip < 0).sum()), n, p / 2).pvalue > P
    correlation = torch.corrcoef(torch.stack(fires).double()) - torch.eye(4)
    assert correlation.abs().max() < 4 / math.sqrt(n)


@loop_over("turns", [-1, 1, 2])
def test_a_third_of_a_turn_of_the_hue_is_that_of_hsv(turns):
    color = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    turned = color_matrix(one, one, 2 * math.pi * turns / 3 * one)[0] @ color
    h, s, v = colorsys.rgb_to_hsv(*color.tolist())
    assert_close(turned, torch.tensor(colorsys.hsv_to_rgb((h + turns / 3) % 1, s, v), dtype=torch.float64))


def test_luma_flip_and_saturation_split_grey_from_color():
    """The flip negates the mean of the channels and keeps what they differ by; saturation scales only the latter."""
    color = torch.randn(3, dtype=torch.float64)
    grey = color.mean().expand(3)
    one = torch.ones(1, dtype=torch.float64)
    assert_close(color_matrix(-one, one, 0 * one)[0] @ color, -grey + (color - grey))
    assert_close(color_matrix(one, 3 * one, 0 * one)[0] @ color, grey + 3 * (color - grey))
    assert_close(color_matrix(one, 0 * one, 0 * one)[0] @ color, grey)


def test_grey_images_are_the_grey_of_color_images():
    grey = torch.randn(50, 1, 3, 3, dtype=torch.float64)
    torch.manual_seed(3)
    one = recolor(grey, draws(grey, 0.7))
    torch.manual_seed(3)
    three = recolor(grey.expand(50, 3, 3, 3), draws(grey, 0.7))
    assert_close(one.expand(50, 3, 3, 3), three)
    assert (one != grey).flatten(1).any(1).double().mean() > 0.5


# ---- filtering --------------------------------------------------------------------------------------------------


def test_gains_have_the_documented_distribution():
    """Each band fires by itself; a lone one is lognormal relative to the others, and the power of 1/f images stays."""
    n, p = 20000, 0.1
    x = torch.zeros(n, 1, 2, 2, dtype=torch.float64)
    gains = band_gains(draws(x, p))
    neutral = (gains == 1).all(1)
    assert stats.binomtest(int(neutral.sum()), n, (1 - p) ** 4).pvalue > P
    for i in range(4):
        others = [j for j in range(4) if j != i]
        lone = ~neutral & (gains[:, others].amax(1) - gains[:, others].amin(1) < 1e-12)
        assert stats.binomtest(int(lone.sum()), n, p * (1 - p) ** 3).pvalue > P
        ratio = gains[lone, i] / gains[lone, others[0]]
        assert stats.kstest(ratio.log2(), stats.norm().cdf).pvalue > P
        power = gains[lone].square() @ torch.tensor(POWER, dtype=torch.float64)
        assert_close(power, torch.ones_like(power))
    assert_close(sum(POWER), 1.0, rtol=0, atol=1e-12)


@loop_over(("height", "width"), [(2, 5), (28, 28), (40, 12)])
def test_filtering_is_a_separable_convolution_of_the_mirrored_image(height, width):
    x = torch.randn(4, 2, height, width, dtype=torch.float64)
    torch.manual_seed(5)
    y = band_filter(x, draws(x))
    torch.manual_seed(5)
    kernels = band_gains(draws(x)).numpy() @ band_kernels()  # (N, 43), symmetric
    for image, kernel, result in zip(x.numpy(), kernels, y, strict=True):
        wide = np.pad(image, ((0, 0), (21, 21), (21, 21)), mode="reflect")
        wide = np.apply_along_axis(np.convolve, 1, wide, kernel, "valid")
        assert_close(result, torch.tensor(np.apply_along_axis(np.convolve, 2, wide, kernel, "valid")))


# ---- corruption -------------------------------------------------------------------------------------------------


def test_noise_has_the_documented_strength():
    x = torch.zeros(2000, 1, 32, 32, dtype=torch.float64)
    y = corrupt(x, draws(x))
    visible = y != 0
    std = torch.tensor([image[seen].std() for image, seen in zip(y, visible, strict=True)])
    assert stats.kstest(std, stats.halfnorm(scale=0.1).cdf).pvalue > P
    whole = (y / std.view(-1, 1, 1, 1))[visible][:5000]
    assert stats.kstest(whole, stats.norm().cdf).pvalue > P


def test_the_hole_is_half_the_image_wide_and_anywhere():
    n, height, width = 4000, 16, 24
    x = torch.ones(n, 1, height, width)
    y = corrupt(x, draws(x))[:, 0]
    empty = y == 0
    rows, columns = empty.any(2), empty.any(1)
    assert torch.equal(empty, rows.unsqueeze(2) & columns.unsqueeze(1))  # one rectangle
    for line, size in ((rows, height), (columns, width)):
        count = line.sum(1)
        assert (line[:, 1:] != line[:, :-1]).sum(1).max() <= 2  # one interval
        assert count.max() == size // 2
        assert count.min() >= size // 4
        for position in (0, size // 2, size - 1):  # of the centres, what is less than a quarter of the size away
            at = (position + 0.5) / size
            share = min(at + 0.25, 1) - max(at - 0.25, 0)
            assert stats.binomtest(int(line[:, position].sum()), n, share).pvalue > P
    independent = torch.corrcoef(torch.stack([rows[:, 0], columns[:, 0]]).double())[0, 1]
    assert independent.abs() < 2.6 / math.sqrt(n)


def test_noise_and_hole_fire_by_themselves():
    n, p = 4000, 0.4
    x = torch.ones(n, 1, 8, 8)
    y = corrupt(x, draws(x, p))
    holed = (y == 0).flatten(1).any(1)
    noisy = ((y != 0) & (y != 1)).flatten(1).any(1)
    for one in (holed, noisy):
        assert stats.binomtest(int(one.sum()), n, p).pvalue > P
    assert torch.corrcoef(torch.stack([holed, noisy]).double())[0, 1].abs() < 2.6 / math.sqrt(n)


def test_a_hole_in_the_middle():
    inside = hole(torch.tensor([[0.5, 0.5], [2.0, 2.0]]), 4, 8)
    wanted = torch.zeros(2, 1, 4, 8, dtype=torch.bool)
    wanted[0, 0, 1:3, 2:6] = True
    assert torch.equal(inside, wanted)
