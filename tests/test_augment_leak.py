"""Which p lets D's view of augmented images tell what G's own images look like (Karras et al. 2020, sec. 2.2, app. C).

An augmentation turns a distribution of images into one of augmented images, linearly: on a finite set of images by a
matrix M = (1 - p) I + p E[T]. It does not leak if M is invertible, for then only one distribution of originals fits
what D sees; the smallest singular value is how much is left of the difference between two. E[T] is not assumed here
but measured: on what the library draws at p = 1.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import loop_over
from PIL import Image
from torch.testing import assert_close

from equipoise.augment import ADA
from equipoise.augment.affine import compose, rotate, rotate90, scale, stretch, translate, translate_pixels, x_flip
from equipoise.augment.color import recolor
from equipoise.augment.corruption import corrupt
from equipoise.augment.draws import Draws
from equipoise.augment.filters import band_gains
from equipoise.augment.resampling import move

ROOT = Path(__file__).parents[1]
N = 40_000
NOISE = 5 / math.sqrt(N)  # of a frequency among N, at most
STEPS = (0.1, 0.3, 0.5, 0.7, 0.8)


def draws(n, p=1.0, height=28, width=28, channels=1):
    return Draws(torch.tensor(p), torch.zeros(1, channels, height, width, dtype=torch.float64).expand(n, -1, -1, -1))


# ---- orientations: flips and rotations by 90 degrees ---------------------------------------------------------------

PATTERN = torch.arange(9.0).view(3, 3)
ORIENTATIONS = torch.stack([p.rot90(k) for p in (PATTERN, PATTERN.flip(1)) for k in range(4)])  # (8, 3, 3)


def frequencies(transforms, p, n):
    """(8, 8): how often each orientation (column) becomes each (row), counted."""
    x = ORIENTATIONS.repeat_interleave(n, 0).unsqueeze(1)
    seen = move(x, compose(transforms, Draws(torch.tensor(p), x)))[:, 0]
    after = (seen.unsqueeze(1) == ORIENTATIONS).flatten(2).all(2).double()  # (8 n, 8), one hot
    assert (after.sum(1) == 1).all()
    return after.view(8, n, 8).mean(1).T


def group_element(act):
    """(8, 8): the permutation of orientations by which `act` changes an image."""
    return torch.stack([(act(o) == ORIENTATIONS).flatten(1).all(1) for o in ORIENTATIONS], 1).double()


TURNS = torch.stack([group_element(lambda o, k=k: o.rot90(k)) for k in range(4)]).mean(0)
FLIPS = torch.stack([torch.eye(8, dtype=torch.float64), group_element(lambda o: o.flip(1))]).mean(0)
ONE = torch.eye(8, dtype=torch.float64)


@loop_over(
    ("transforms", "means"),
    [([x_flip], [FLIPS]), ([rotate90], [TURNS]), ([x_flip, rotate90], [FLIPS, TURNS])],
    ids=["flips", "rotations", "both"],
)
@loop_over("p", [0.0, 0.3, 0.8, 1.0])
def test_orientations_can_be_told_below_p_1(transforms, means, p):
    """Measured frequencies are those of M; its smallest singular value is 1 - p for each transform."""
    n = N // 8
    M = ONE
    for mean in means:
        M = ((1 - p) * ONE + p * mean) @ M
    assert (frequencies(transforms, p, n) - M).abs().max() < 5 / math.sqrt(4 * n)
    smallest = torch.linalg.svdvals(M).min()
    assert_close(smallest.item(), (1 - p) ** len(means), rtol=0, atol=1e-12)


def test_the_condition_number_of_rotations_grows_as_one_over_1_minus_p():
    for p in np.linspace(0, 0.99, 34):
        M = (1 - p) * ONE + p * TURNS
        assert_close(torch.linalg.cond(M).item(), 1 / (1 - p), rtol=1e-9, atol=0)


def test_rotations_that_never_keep_an_image_would_leak_at_p_075():
    """Why 0 degrees is one of the four: without it the eigenvalue 1 - 4p/3 crosses zero."""
    never = (4 * TURNS - ONE) / 3
    for p in (0.5, 0.75, 0.9):
        smallest = torch.linalg.svdvals((1 - p) * ONE + p * never).min()
        assert_close(smallest.item(), abs(1 - 4 * p / 3), rtol=0, atol=1e-12)


@loop_over("p", [0.3, 0.8])
def test_the_originals_are_recovered_from_what_d_sees(p):
    """Shares of the orientations of G's images, from the augmented images alone; at p = 1 all shares look alike."""
    made = torch.tensor([0.6, 0.1, 0.0, 0.1, 0.2, 0.0, 0.0, 0.0], dtype=torch.float64)
    M = ((1 - p) * ONE + p * TURNS) @ ((1 - p) * ONE + p * FLIPS)
    seen = frequencies([x_flip, rotate90], p, N // 8) @ made
    assert_close(torch.linalg.solve(M, seen), made, rtol=0, atol=2 * NOISE / (1 - p) ** 2)
    blurred = frequencies([x_flip, rotate90], 1.0, N // 8) @ made
    assert_close(blurred, torch.full((8,), 1 / 8, dtype=torch.float64), rtol=0, atol=2 * NOISE)


# ---- amounts: whatever adds to a position, an angle or a logarithm ---------------------------------------------------


def color_number(channels):
    """One draw of the colour group on a probe: what recolor makes of black and of white."""
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2).expand(N, channels, 1, 2)
    y = recolor(x, Draws(torch.tensor(1.0), x))[:, 0, 0]
    along = y[:, 1] - y[:, 0]
    return y[:, 0] / along, along.abs().log2()


def saturation():
    """Of a colour without luma, against the contrast that grey shows."""
    x = torch.tensor([[1.0, -0.5, -0.5], [1.0, 1.0, 1.0]], dtype=torch.float64).T.view(1, 3, 1, 2).expand(N, 3, 1, 2)
    y = recolor(x, Draws(torch.tensor(1.0), x))[:, :, 0]
    color = (y[..., 0] - y[..., 0].mean(1, keepdim=True)).norm(dim=1) / math.sqrt(1.5)
    grey = (y[..., 1].mean(1) - y[..., 0].mean(1)).abs()
    return (color / grey).log2()


AMOUNTS = {
    "isotropic scale": lambda: scale(draws(N))[:, 0, 0].log2(),
    "anisotropic scale": lambda: stretch(draws(N))[:, 0, 0].log2(),
    "translation": lambda: translate(draws(N))[:, 0, 2] / 28,
    "brightness": lambda: color_number(1)[0],
    "contrast": lambda: color_number(1)[1],
    "saturation": saturation,
    "gain of a band": lambda: (g := band_gains(draws(N)).log2())[:, 3] - g[:, 0],
}
FREQUENCIES = torch.linspace(0.5, 60, 60, dtype=torch.float64)


def characteristic(amount):
    """E exp(i w amount) at FREQUENCIES: the eigenvalues of E[T], if T adds `amount` to something -> complex (60,)."""
    return torch.exp(1j * FREQUENCIES.unsqueeze(1) * amount).mean(1)


@pytest.mark.parametrize("name", AMOUNTS)
def test_gaussian_amounts_leave_all_frequencies(name):
    """Their characteristic function is positive, so that M's eigenvalues are at least 1 - p, at any frequency."""
    values = characteristic(AMOUNTS[name]())
    assert values.imag.abs().max() < 2 * NOISE
    for p in STEPS:
        assert ((1 - p) + p * values).abs().min() > 1 - p - 2 * NOISE
    assert values.abs().min() < 2 * NOISE  # and not more: at p = 1 fine differences drown


def turn_of(matrix):
    return torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])


@loop_over("p", STEPS)
def test_free_rotations_leave_1_minus_p_of_every_harmonic(p):
    """Uniform angles erase all harmonics k = 1, 2, ... Two chances to fire, one before and one after `stretch`, are
    together as one that fires with probability p."""
    angle = turn_of(compose([rotate, rotate], draws(N, p)))
    harmonics = torch.arange(1, 9, dtype=torch.float64).unsqueeze(1)
    eigenvalues = torch.exp(1j * harmonics * angle).mean(1)
    assert_close(eigenvalues, torch.full_like(eigenvalues, 1 - p), rtol=0, atol=2 * NOISE)


@loop_over("p", STEPS)
def test_the_hue_leaves_1_minus_p_of_every_harmonic(p):
    x = torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64).view(1, 3, 1, 1).expand(N, 3, 1, 1)  # red, without luma
    y = recolor(x, Draws(torch.tensor(p), x))[:, :, 0, 0]
    y = y - y.mean(1, keepdim=True)
    angle = torch.atan2((y[:, 1] - y[:, 2]) / math.sqrt(3), y[:, 0])
    harmonics = torch.arange(1, 9, dtype=torch.float64).unsqueeze(1)
    eigenvalues = torch.exp(1j * harmonics * angle).mean(1)
    assert_close(eigenvalues, torch.full_like(eigenvalues, 1 - p), rtol=0, atol=2 * NOISE)


@loop_over(("size", "limit"), [(8, 1.0), (16, 0.894), (28, 0.814), (32, 0.842), (64, 0.829), (256, 0.825)])
def test_pixel_translations_are_safe_up_to_p_08(size, limit):
    """On images that repeat themselves. The characteristic function of a uniform shift is below zero somewhere, unlike
    those above, so M is singular at a p < 1: at 1/(1 - lowest), which the sizes in use keep above 0.8."""
    shift = translate_pixels(draws(N, 1.0, size, size))[:, 0, 2].long()
    edges = (torch.arange(-size // 2, size // 2 + 1) - 0.5).clamp(-size / 8, size / 8)  # of what rounds to each shift
    weights = torch.histc(shift.double(), size, -size / 2 - 0.5, size / 2 - 0.5) / N
    exact = edges.diff() / (size / 4)
    assert_close(weights, exact.double(), rtol=0, atol=NOISE)
    lowest = torch.fft.fft(exact.roll(size // 2)).real.min().item()
    assert_close(1 / (1 - lowest), limit, rtol=0, atol=1e-3)
    assert all((1 - p) + p * lowest > 0.016 for p in STEPS)


# ---- corruption --------------------------------------------------------------------------------------------------


def test_holes_leave_images_of_four_pixels():
    """On all 3⁴ images of dark, grey and bright pixels. A hole only makes pixels grey, so M is triangular, and its
    eigenvalues are 1 - p + p P(no pixel that is not grey is hit) >= 1 - p."""
    states = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4))).view(81, 1, 2, 2)
    n = 300
    x = states.repeat_interleave(n, 0)
    y = corrupt(x, Draws(torch.tensor(1.0), x))
    holed = torch.where(y == 0, 0.0, x)  # without the noise that comes with it
    index = ((holed.view(81, n, 4) + 1) @ torch.tensor([27.0, 9.0, 3.0, 1.0])).long()
    mean = torch.stack([torch.bincount(i, minlength=81).double() / n for i in index], 1)
    greys = (states.flatten(1) == 0).sum(1)
    order = greys.argsort(stable=True)
    assert (mean[order][:, order].triu(1) == 0).all()
    for p in STEPS:
        M = (1 - p) * torch.eye(81, dtype=torch.float64) + p * mean
        assert torch.linalg.eigvals(M).abs().min() >= 1 - p - 1e-9
        assert torch.linalg.svdvals(M).min() > 0.1 * (1 - p)


def test_additive_noise_leaves_all_frequencies():
    """Its distribution over pixels is a mixture of Gaussians, whose characteristic function is positive."""
    x = torch.zeros(N // 100, 1, 10, 10, dtype=torch.float64)
    values = characteristic(corrupt(x, Draws(torch.tensor(1.0), x)).flatten())
    assert values.real.min() > -5 / math.sqrt(N // 100)
    assert values.imag.abs().max() < 5 / math.sqrt(N // 100)


# ---- all at once, and the figure -----------------------------------------------------------------------------------


def test_generators_that_differ_are_told_apart_at_p_08():
    """G that is upright against G that is upside down: the means of what D sees differ at p = 0.8, not at p = 1."""

    def contrast(p):
        module = ADA(groups=("blit",), initial=p, heuristic="fixed").build()
        image = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
        image[..., :4, :] = 1
        upright, turned = (module(v.expand(N // 10, 1, 8, 8)).mean(0) for v in (image, image.rot90(2, (2, 3))))
        return (upright - turned).abs().max()

    assert contrast(0.8) > 0.15
    assert contrast(1.0) < 0.05


@pytest.mark.skipif(not (ROOT / "scripts").exists(), reason="a source distribution has no scripts")
def test_the_figure_can_be_made(tmp_path):
    out = tmp_path / "img" / "leak.png"
    done = subprocess.run(
        [sys.executable, "scripts/leak_figure.py", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    with Image.open(out) as image:
        assert image.size == (800, 340)
        assert len(image.convert("RGB").getcolors(1000)) > 20
