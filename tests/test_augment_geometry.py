"""Geometric transforms: exact pixel moves, matrices in the paper's order, band-limited resampling, distributions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from loops import loop_over
from scipy import ndimage, stats
from torch.testing import assert_close

from equipoise.augment import affine, wavelets
from equipoise.augment.affine import BLIT, GEOMETRIC, compose, rotate, rotate90, translate_pixels, warp, x_flip
from equipoise.augment.bilinear import bilinear
from equipoise.augment.draws import Draws
from equipoise.augment.resampling import move, pick, resample
from equipoise.augment.wavelets import SYM2, SYM6, bands, reflect

P = 0.01  # level of every statistical test; seeds are fixed, so a test that passes once always does


def draws(n, p=1.0, height=16, width=16):
    return Draws(torch.tensor(p), torch.zeros(n, 1, height, width, dtype=torch.float64))


class Scripted(Draws):
    """Draws that are given: every transform fires, and gets the next of `values`."""

    def __init__(self, values, x):
        super().__init__(torch.tensor(1.0), x)
        self.values = list(values)

    def next(self, *_):
        return torch.as_tensor(self.values.pop(0), dtype=self.dtype).expand(self.n, *self.shape)

    shape = ()

    def fire(self, value, neutral, p=None):
        return value

    def uniform(self, low, high, *shape):
        self.shape = shape
        return self.next()

    def normal(self, std, *shape):
        self.shape = shape
        return self.next()

    def lognormal(self, octaves):
        self.shape = ()
        return self.next()

    def integer(self, stop):
        self.shape = ()
        return self.next()


def shifted(x, down, right):
    """(H, W) moved by whole pixels; what comes in is the mirror image."""
    height, width = x.shape
    rows = np.pad(np.arange(height), height - 1, mode="reflect")[height - 1 - down :][:height]
    columns = np.pad(np.arange(width), width - 1, mode="reflect")[width - 1 - right :][:width]
    return x[rows][:, columns]


# ---- blits: exact -----------------------------------------------------------------------------------------------


@loop_over("flip", [0, 1])
@loop_over("turns", [0, 1, 2, 3])
@loop_over("shift", [(0.0, 0.0), (0.125, -0.07), (-0.11, 0.03)])
@loop_over("size", [8, 9, 28])
def test_blits_are_flip_then_rot90_then_shift_bit_for_bit(flip, turns, shift, size):
    x = torch.randn(2, 3, size, size)
    matrix = compose(BLIT, Scripted([flip, turns, shift], x))
    right, down = (-round(s * size) for s in shift)  # the matrix leads from the result to the original
    wanted = x.flip(3) if flip else x
    wanted = torch.rot90(wanted, turns, (2, 3))
    wanted = torch.stack([torch.stack([shifted(c, down, right) for c in image]) for image in wanted])
    assert torch.equal(move(x, matrix), wanted)


def test_blits_of_the_group_are_all_there_and_nothing_else():
    """At p = 1, each of 4 turns x 2 flips as often as any other, and shifts as rounding U(-2, 2) gives them."""
    n, size = 6000, 16
    image = torch.randn(1, 1, size, size)
    y = warp(image.expand(n, 1, size, size), draws(n), blit=True, geometric=False)[:, 0]
    turned = [torch.rot90(image[0, 0].flip(1) if flip else image[0, 0], k) for flip in (0, 1) for k in range(4)]
    seen = np.zeros((8, 5, 5))
    for i, t in enumerate(turned):
        for down in range(-2, 3):
            for right in range(-2, 3):
                seen[i, down + 2, right + 2] = (y == shifted(t, down, right)).all(2).all(1).sum()
    assert seen.sum() == n
    assert stats.chisquare(seen.sum((1, 2))).pvalue > P
    share = np.array([1, 2, 2, 2, 1]) / 8
    assert stats.chisquare(seen.sum((0, 2)), n * share).pvalue > P
    assert stats.chisquare(seen.sum((0, 1)), n * share).pvalue > P


def test_images_that_are_not_square_are_turned_by_180_degrees_only():
    n = 400
    image = torch.randn(1, 1, 6, 9)
    y = move(image.expand(n, 1, 6, 9), compose([rotate90], draws(n, 1.0, 6, 9)).float())
    upright, turned = ((y == v).flatten(1).all(1) for v in (image, image.rot90(2, (2, 3))))
    assert (upright | turned).all()
    assert stats.binomtest(int(turned.sum()), n).pvalue > P


@loop_over("height", [2, 5, 12])
@loop_over("width", [2, 7, 28])
def test_moves_of_any_size(height, width):
    x = torch.randn(3, 1, height, width)
    for down, right in ((1, 0), (0, -1), (-1, 1)):
        matrix = affine.translation(torch.full((3,), -float(right)), torch.full((3,), -float(down)))
        assert torch.equal(move(x, matrix)[1, 0], shifted(x[1, 0], down, right))


@loop_over("size", [2, 3, 10])
def test_reflect_is_numpys(size):
    wanted = np.pad(np.arange(size), 25, mode="reflect")
    assert np.array_equal(reflect(np.arange(-25, size + 25), size), wanted)
    assert np.array_equal(reflect(torch.arange(-25, size + 25), size).numpy(), wanted)
    halfway = reflect(np.arange(-25, size + 24) + 0.5, size)
    assert np.array_equal(halfway, (wanted[1:] + wanted[:-1]) / 2)


def test_pick_broadcasts():
    x = torch.randn(2, 3, 4, 5)
    rows, columns = torch.tensor([[[3], [1]], [[0], [2]]]), torch.tensor([[[4, 0, 2]], [[1, 1, 3]]])
    y = pick(x, rows, columns)
    for n in range(2):
        assert torch.equal(y[n], x[n][:, rows[n, :, 0]][:, :, columns[n, 0]])


# ---- composed matrices ------------------------------------------------------------------------------------------


def test_the_composed_matrix_is_the_papers_sequence():
    """A point goes through each transform in turn, by its own formula; the matrix leads back."""
    height, width = 20, 32
    x = torch.zeros(1, 1, height, width, dtype=torch.float64)
    size, before, wide, after, shift = 1.3, 0.7, 0.8, -2.1, (0.1, -0.2)
    matrix = compose(GEOMETRIC, Scripted([size, before, wide, after, shift], x))[0].numpy()
    point = np.array([3.0, -4.0])

    def turned(v, angle):
        return np.array(
            [v[0] * math.cos(angle) - v[1] * math.sin(angle), v[0] * math.sin(angle) + v[1] * math.cos(angle)]
        )

    moved = turned(size * point, -before)
    moved = turned(moved * [wide, 1 / wide], -after) - np.array(shift) * [width, height]
    assert_close(matrix @ [*moved, 1], np.array([*point, 1]), rtol=0, atol=1e-12)


def test_warp_moves_pixels_or_resamples_once():
    """Images that no general transform reached keep their pixels; the others are sampled under the product of both."""
    x = torch.randn(200, 1, 16, 16, dtype=torch.float64)
    torch.manual_seed(1)
    y = warp(x, Draws(torch.tensor(0.3), x), blit=True, geometric=True)
    torch.manual_seed(1)
    blits, general = (compose(group, Draws(torch.tensor(0.3), x)) for group in (BLIT, GEOMETRIC))
    only_blits = (general == torch.eye(3)).flatten(1).all(1)
    assert 10 < only_blits.sum() < 190
    assert torch.equal(y[only_blits], move(x, blits)[only_blits])
    assert torch.equal(y[~only_blits], resample(x, blits @ general)[~only_blits])


# ---- resampling -------------------------------------------------------------------------------------------------


def shown(matrix, height, width):
    """(N, H, W, 2): the point (x, y) of the original that the result shows at each pixel, in pixels."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64)
    return torch.einsum("nij,hwj->nhwi", matrix[:, :2, :2], torch.stack((x, y), -1) - centre) + (
        matrix[:, None, None, :2, 2] + centre
    )


@loop_over(("height", "width"), [(64, 64), (48, 77)])
def test_a_ramp_stays_a_ramp(height, width):
    """Exactly, away from the border: the filters keep straight lines, and so does bilinear sampling."""
    matrix = compose([*BLIT, *GEOMETRIC], draws(30, 1.0, height, width))
    at = shown(matrix, height, width)
    inside = ((at > 12) & (at < torch.tensor([width, height]) - 13)).all(3)
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    result = resample((0.3 * x - 0.2 * y + 1).expand(30, 1, height, width), matrix)[:, 0]
    assert inside.sum() > 5000
    assert_close(result[inside], (0.3 * at[..., 0] - 0.2 * at[..., 1] + 1)[inside], rtol=0, atol=1e-9)


def test_smooth_images_against_splines():
    """The whole picture, mirrored borders included, for every kind of map at once."""
    image = torch.tensor(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 40)), 3, mode="mirror"))
    image /= image.abs().max()
    matrix = compose([*BLIT, *GEOMETRIC], draws(20, 1.0, 40, 40))
    result = resample(image.expand(20, 1, 40, 40), matrix)[:, 0]
    for m, y in zip(shown(matrix, 40, 40), result, strict=True):
        wanted = ndimage.map_coordinates(image.numpy(), m.flip(-1).permute(2, 0, 1).numpy(), order=5, mode="mirror")
        assert (y - torch.tensor(wanted)).abs().max() < 0.02


@loop_over(("height", "width"), [(2, 3), (5, 2), (9, 28), (32, 32)])
@loop_over(("down", "right"), [(0, 0), (2, -1), (-7, 40), (300, 1)])
def test_whole_pixels_come_back_up_to_the_border(height, width, down, right):
    """The filters undo each other, and beyond the border lies the mirror image, however far."""
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    shift = (torch.full((2,), -float(v), dtype=torch.float64) for v in (right, down))
    matrix = affine.translation(*shift)
    assert_close(resample(x, matrix), move(x, matrix), rtol=0, atol=1e-11)
    assert_close(resample(x.float(), matrix.float()), move(x, matrix).float(), rtol=0, atol=1e-4)


@loop_over("delay", [5.0, wavelets.DELAY])
def test_a_mirrored_border_is_the_inside_of_a_larger_image(delay):
    """Any map of an image, and the same map of a picture that holds it and its mirror images, to the last pixel."""
    height, width = 12, 17
    x = torch.randn(1, 2, height, width, dtype=torch.float64).expand(6, -1, -1, -1)
    matrix = compose(GEOMETRIC, draws(6, 1.0, height, width))
    margins = 3 * (height - 1), 3 * (width - 1)
    rows, columns = (reflect(torch.arange(-m, n + m), n) for m, n in zip(margins, (height, width), strict=True))
    wide = resample(x[:, :, rows][..., columns], matrix, delay=delay)
    inside = wide[:, :, margins[0] : -margins[0], margins[1] : -margins[1]]
    assert_close(resample(x, matrix, delay=delay), inside, rtol=0, atol=1e-11)


def test_shrinking_does_not_alias():
    """Stripes finer than the smaller picture can hold vanish in it; stripes that it can hold stay."""
    half = affine.scaling(torch.tensor([2.0]), torch.tensor([2.0])).double()
    x = torch.arange(64.0, dtype=torch.float64).expand(1, 1, 64, 64)
    fine, coarse = (resample((frequency * math.pi * x).cos(), half)[..., 8:-8, 8:-8] for frequency in (0.8, 0.15))
    assert fine.std() < 0.15
    assert coarse.std() > 0.6


def test_upsampling_is_smooth():
    """A wave comes out as the same wave, where repeating pixels would give steps of a tenth and more."""
    n = torch.arange(64, dtype=torch.float64)
    fine = (wavelets.upsampling(64, n) @ (0.25 * math.pi * n).cos())[:128]
    wanted = (0.25 * math.pi * (torch.arange(128) - (wavelets.DELAY - wavelets.FIRST)) / 2).cos()
    assert (fine - wanted)[16:-16].abs().max() < 0.02


def test_bilinear_is_grid_sample():
    x, grid = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.rand(2, 6, 7, 2, dtype=torch.float64) * 2.4 - 1.2
    y = x.clone().requires_grad_(True)
    wanted = F.grid_sample(y, grid, align_corners=True)
    assert_close(bilinear(x, grid), wanted.detach())
    weight = torch.randn_like(wanted)
    (slope,) = torch.autograd.grad((wanted * weight).sum(), y)
    x.requires_grad_(True)
    assert_close(torch.autograd.grad((bilinear(x, grid) * weight).sum(), x)[0], slope)
    assert torch.autograd.gradcheck(lambda v: bilinear(v, grid).square(), x)
    assert torch.autograd.gradgradcheck(lambda v: bilinear(v, grid).square(), x)


def test_bilinear_has_third_derivatives():
    """Of Σ (S x)⁴ along v: 24 Σ (S x) (S v)³."""
    x, v = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64).unbind()
    grid = torch.rand(1, 5, 3, 2, dtype=torch.float64) * 2 - 1
    x.requires_grad_(True)
    value = bilinear(x, grid).pow(4).sum()
    for _ in range(3):
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        value = (slope * v).sum()
    assert_close(value, 24 * (bilinear(x, grid) * bilinear(v, grid) ** 3).sum())


# ---- wavelets ---------------------------------------------------------------------------------------------------


@loop_over(("taps", "moments"), [(SYM2, 2), (SYM6, 6)], ids=["sym2", "sym6"])
def test_wavelets_are_orthogonal_and_have_their_vanishing_moments(taps, moments):
    assert len(taps) == 2 * moments
    assert_close(taps.sum(), math.sqrt(2), rtol=0, atol=1e-14)
    for k in range(moments):
        assert_close(taps[2 * k :] @ taps[: len(taps) - 2 * k], float(k == 0), rtol=0, atol=1e-14)
        n = np.arange(len(taps)) / len(taps)
        assert_close(((-1.0) ** np.arange(len(taps)) * n**k) @ taps, 0.0, rtol=0, atol=1e-14)


@loop_over("size", [2, 5, 28, 64])
def test_bands_add_up_to_the_signal(size):
    like = torch.zeros((), dtype=torch.float64)
    assert_close(bands(size, like).sum(0), torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-9)


def test_bands_have_the_closed_form_response():
    """|H|²/2 of SYM2 is cos⁴(w/2) (1 + 2 sin²(w/2)) (Daubechies 1992, sec. 6.1)."""
    kernels = wavelets.band_kernels()
    w = np.linspace(0, math.pi, 200)
    response = kernels @ np.cos(np.outer(np.arange(43) - 21, w))

    def low(w):
        return np.cos(w / 2) ** 4 * (1 + 2 * np.sin(w / 2) ** 2)

    wanted = [
        low(w) * low(2 * w) * low(4 * w),
        low(w) * low(2 * w) * (1 - low(4 * w)),
        low(w) * (1 - low(2 * w)),
        1 - low(w),
    ]
    assert_close(response, np.array(wanted), rtol=0, atol=1e-9)
    edges = np.array([0, 1 / 8, 1 / 4, 1 / 2, 1]) * math.pi
    for i, (start, stop) in enumerate(pairwise(edges)):
        middle = response[:, np.abs(w - (start + stop) / 2).argmin()]
        assert middle.argmax() == i


# ---- distributions ----------------------------------------------------------------------------------------------


def test_the_general_transforms_have_the_documented_distributions():
    n = 4000
    size = affine.scale(draws(n))
    assert torch.equal(size[:, 0, 0], size[:, 1, 1])
    assert stats.kstest(size[:, 0, 0].log2(), stats.norm(scale=0.2).cdf).pvalue > P

    wide = affine.stretch(draws(n))
    assert_close(wide[:, 0, 0] * wide[:, 1, 1], torch.ones(n, dtype=torch.float64))
    assert stats.kstest(wide[:, 0, 0].log2(), stats.norm(scale=0.2).cdf).pvalue > P

    turn = rotate(draws(n))
    assert_close(turn[:, :2, :2] @ turn[:, :2, :2].mT, torch.eye(2, dtype=torch.float64).expand(n, 2, 2))
    angle = torch.atan2(turn[:, 1, 0], turn[:, 0, 0])
    assert stats.kstest(angle, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > P

    shift = affine.translate(draws(n, height=16, width=40))
    for i, length in enumerate((40, 16)):
        assert stats.kstest(shift[:, i, 2] / length, stats.norm(scale=0.125).cdf).pvalue > P
    assert abs(stats.pearsonr(shift[:, 0, 2], shift[:, 1, 2]).statistic) < 2.6 / math.sqrt(n)


def test_one_of_the_two_rotations_fires_with_probability_p():
    p, n = 0.36, 20000
    fires = [(rotate(draws(n, p)) != torch.eye(3)).flatten(1).any(1) for _ in range(2)]
    for one in fires:
        assert stats.binomtest(int(one.sum()), n, 1 - math.sqrt(1 - p)).pvalue > P
    assert stats.binomtest(int((fires[0] | fires[1]).sum()), n, p).pvalue > P


NOT_NEUTRAL = {x_flip: 1 / 2, rotate90: 3 / 4, translate_pixels: 1 - (1 / 4) ** 2}
"""How often what a transform draws, at 16 x 16 pixels, changes an image; always for the others."""


@loop_over("transform", [t for t in (*BLIT, *GEOMETRIC) if t is not rotate], ids=lambda t: t.__name__)
def test_each_transform_fires_with_probability_p(transform):
    p, n = 0.3, 5000
    changed = (transform(draws(n, p)) != torch.eye(3)).flatten(1).any(1)
    assert stats.binomtest(int(changed.sum()), n, p * NOT_NEUTRAL.get(transform, 1.0)).pvalue > P
    assert not (transform(draws(n, 0.0)) != torch.eye(3)).any()


def test_images_and_transforms_are_independent():
    """Whether one fires says nothing about another image, nor about another transform of the same image."""
    n = 20000
    d = draws(n, 0.5)
    neutral = torch.eye(3, dtype=torch.float64)
    fires = torch.stack([(t(d) != neutral).flatten(1).any(1) for t in (*BLIT, *GEOMETRIC)]).double()
    correlation = torch.corrcoef(fires) - torch.eye(len(fires))
    assert correlation.abs().max() < 4 / math.sqrt(n)
    centred = fires - fires.mean(1, keepdim=True)
    neighbours = (centred[:, 1:] * centred[:, :-1]).mean(1) / centred.var(1)
    assert neighbours.abs().max() < 4 / math.sqrt(n)
