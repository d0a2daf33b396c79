"""Augmentations without a controller: DiffAugment, instance noise, none at all, and several in a row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fixtures import numbers
from loops import loop_over
from scipy import stats
from torch.testing import assert_close

from equipoise.augment import (
    ADA,
    Augment,
    Augmentation,
    Chain,
    DiffAugment,
    FadingBlur,
    InstanceNoise,
    Means,
    NoAugment,
)
from equipoise.augment.diffaugment import cut_out, recolored, translated
from equipoise.config import components
from equipoise.core.grammar import parse
from equipoise.core.schedules import Cosine, Linear

P = 0.01  # level of every statistical test; seeds are fixed, so a test that passes once always does
ALL = (NoAugment, ADA, DiffAugment, FadingBlur, InstanceNoise, Chain)
SIGN = torch.tensor(1.0)
DRAWS = ("brightness", "saturation", "contrast")
every_augment = pytest.mark.parametrize("augment", ALL, ids=lambda c: c.__name__)


def augmented(x, *policy):
    return DiffAugment(policy=policy).build()(x)


def tensors(name):
    """The arrays of a fixture, without the text beside them."""
    return {key: torch.from_numpy(array) for key, array in numbers(name).items() if key != "config"}


# ---- what all keep ----------------------------------------------------------------------------------------------


@every_augment
def test_is_an_augmentation(augment):
    settings = augment()
    module = settings.build()
    assert isinstance(settings, Augment)
    assert isinstance(module, Augmentation)
    assert not list(module.parameters())
    assert settings.held_out == 0
    assert settings.reads_sign == (augment is ADA)
    assert parse(repr(settings), components()) == settings
    x = torch.randn(3, 1, 28, 28)
    assert module(x).shape == x.shape
    module.at(1000)
    stats = module.adapt(SIGN, 64)
    assert all(v.shape == () for v in stats.values())


@every_augment
def test_gradients_of_both_orders(augment):
    module = augment().build()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)

    def f(x):
        torch.manual_seed(1)
        return module(x).square()

    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(f, x, fast_mode=True)


def test_no_augment_is_the_very_image():
    x = torch.randn(2, 3)
    assert NoAugment().build()(x) is x


# ---- DiffAugment ------------------------------------------------------------------------------------------------


@loop_over("channels", [1, 3])
def test_color_of_diffaugment(channels):
    """Image by image as in the paper: brightness, then saturation about the grey, then contrast about the mean."""
    x = torch.randn(50, channels, 4, 5, dtype=torch.float64)
    torch.manual_seed(2)
    y = augmented(x, "color")
    torch.manual_seed(2)
    numbers = torch.rand(3, 50, 1, 1, 1, dtype=torch.float64).view(3, 50).T.tolist()
    for image, result, (b, s, c) in zip(x.numpy(), y, numbers, strict=True):
        image = image + (b - 0.5)
        grey = image.mean(0, keepdims=True)
        image = (image - grey) * (2 * s) + grey
        image = (image - image.mean()) * (c + 0.5) + image.mean()
        assert_close(result, torch.tensor(image))


def test_color_of_diffaugment_has_the_documented_distribution():
    n = 4000
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2).expand(n, 1, 1, 2)
    y = augmented(x, "color")[:, 0, 0]
    brightness, contrast = y.mean(1), (y[:, 1] - y[:, 0]) / 2
    assert stats.kstest(brightness, stats.uniform(-0.5, 1).cdf).pvalue > P
    assert stats.kstest(contrast, stats.uniform(0.5, 1).cdf).pvalue > P


@loop_over(("height", "width", "down", "right"), [(16, 24, 2, 3), (28, 11, 4, 1), (3, 36, 0, 5)])
def test_translation_of_diffaugment(height, width, down, right):
    """Each shift of up to int(size / 8 + 1/2) as often as any other; zeros come in."""
    n = 4000
    image = torch.randn(2, height, width)
    y = augmented(image.expand(n, 2, height, width), "translation")
    wide = np.pad(image.numpy(), ((0, 0), (down, down), (right, right)))
    seen = np.zeros((2 * down + 1, 2 * right + 1))
    for i in range(2 * down + 1):
        for j in range(2 * right + 1):
            shifted = torch.tensor(wide[:, i : i + height, j : j + width])
            seen[i, j] = (y == shifted).flatten(1).all(1).sum()
    assert seen.sum() == n
    assert stats.chisquare(seen.ravel()).pvalue > P


@loop_over(("height", "width", "hole"), [(12, 20, (6, 10)), (7, 9, (4, 5)), (2, 5, (1, 3))])
def test_cutout_of_diffaugment(height, width, hole):
    """One hole of int(size / 2 + 1/2) pixels a side, each place equally often; only the border makes it smaller."""
    n = 4000
    y = augmented(torch.ones(n, 3, height, width), "cutout")
    empty = y == 0
    assert torch.equal(empty[:, 0], empty[:, 2])
    assert ((y == 1) | empty).all()
    rows, columns = empty[:, 0].any(2), empty[:, 0].any(1)
    assert torch.equal(empty[:, 0], rows.unsqueeze(2) & columns.unsqueeze(1))
    for line, size, side in zip((rows, columns), (height, width), hole, strict=True):
        places = size + 1 - side % 2
        wide = np.zeros((places, size + 2 * side), bool)
        for i in range(places):
            wide[i, i - side // 2 + side :][:side] = True
        wanted = torch.tensor(wide[:, side:-side])
        seen = (line.unsqueeze(1) == wanted).all(2).sum(0)
        assert seen.sum() == n
        assert stats.chisquare(seen).pvalue > P
    independent = torch.corrcoef(torch.stack([rows[:, 0], columns[:, 0]]).double())[0, 1]
    assert independent.abs() < 2.6 / math.sqrt(n)


def test_published_translation_of_28_pixels():
    """data-efficient-gans: given shifts, and the largest one there is."""
    arrays = tensors("zoo/diffaugment28.npz")
    x, shift = arrays["x"], arrays["shift"]
    assert torch.equal(translated(x, *shift.split(1, 1)), arrays["translation"])
    assert_close(recolored(x, *(arrays[name] for name in DRAWS)), arrays["color"])
    moved = augmented(torch.ones(500, 1, 28, 28), "translation")[:, 0]
    for axis in (1, 2):
        assert 28 - moved.any(axis).sum(1).min() == arrays["reach_28"]


def test_published_policy_of_all_three():
    """projected-gan, whose hole is a fifth of the size."""
    arrays = tensors("projected/diffaug_and_blur.npz")
    x, side = arrays["in_x"], int(0.2 * 32 + 0.5)
    y = recolored(x, *(arrays[f"draw/{name}"] for name in DRAWS))
    y = translated(y, *(arrays[f"draw/shift_{axis}"].flatten(1) for axis in ("rows", "columns")))
    y = cut_out(y, *(arrays[f"draw/cutout_{axis}"].flatten(1) for axis in ("row", "column")), side, side)
    assert_close(y, arrays["out"], rtol=0, atol=3e-6)


def test_published_translation_and_hole_of_8_pixels():
    """GAT, on maps of four channels; the hole is as large as ours."""
    arrays = tensors("modern/gat_diffaugment.npz")
    x = arrays["in/x"].float()
    shifts, centres = (
        [arrays[f"{name}/draw/{i}"].flatten(1) for i in draws]
        for name, draws in (("translation", (0, 1)), ("cutout", (1, 2)))
    )
    assert torch.equal(translated(x, *shifts), arrays["translation/out"])
    assert torch.equal(cut_out(x, *centres, *arrays["cutout/draw/0"].tolist()), arrays["cutout/out"])
    assert (augmented(torch.ones(9, 1, 8, 8), "cutout") == 0).sum((2, 3)).max() == 16


def test_policy_is_applied_in_order():
    x = torch.ones(200, 1, 16, 16)
    holes_then_color, color_then_holes = augmented(x, "cutout", "color"), augmented(x, "color", "cutout")
    assert (holes_then_color == 0).double().mean() < 0.01  # brightness reaches the holes
    assert (color_then_holes == 0).double().mean() > 0.1


def test_diffaugment_refuses():
    with pytest.raises(ValueError, match=r"DiffAugment augments images \(N, C, H, W\), got \(4, 2\)"):
        DiffAugment().build()(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="policy"):
        DiffAugment(policy=("colour",))


# ---- instance noise ---------------------------------------------------------------------------------------------


@loop_over("shape", [(500, 2), (4, 3, 16, 16)])
def test_noise_is_gaussian_of_the_scheduled_strength(shape):
    module, x = InstanceNoise(std=Linear(start=0.4, end=0.0, kimg=1)).build(), torch.randn(shape, dtype=torch.float64)
    for nimg, std in ((0, 0.4), (250, 0.3), (900, 0.04)):
        module.at(nimg)
        noise = (module(x) - x).flatten()
        assert stats.kstest(noise / std, stats.norm().cdf).pvalue > P
    module.at(1000)
    assert torch.equal(module(x), x)


def test_noise_starts_at_the_start_of_its_schedule():
    """Also before `at` is first called, and it has no state: what follows from nimg need not be saved."""
    assert InstanceNoise(std=Cosine(start=0.2, end=0.1, kimg=3)).build().std == 0.2
    assert InstanceNoise(std=0.3).build().std == 0.3
    assert not InstanceNoise().build().state_dict()


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match=r"InstanceNoise\.std takes a number of 0 or more, or a schedule, got -1\.0"):
        InstanceNoise(std=-1.0)


# ---- several ----------------------------------------------------------------------------------------------------


def test_chain_is_first_to_last():
    x = torch.rand(4, 1, 16, 16) + 1
    parts = (InstanceNoise(std=0.1), DiffAugment(policy=("cutout",)))
    for order, holes_are_noisy in ((parts, False), (parts[::-1], True)):
        assert ((Chain(order).build()(x) == 0).any()) != holes_are_noisy


def test_chain_passes_on_what_its_parts_need():
    settings = Chain((ADA(heuristic="rv", held_out=0.2, kimg=1, every=1), InstanceNoise(std=Linear(0.2, 0.0, 1.0))))
    assert settings.held_out == 0.2
    assert not settings.reads_sign
    assert Chain((InstanceNoise(), ADA())).reads_sign
    module = settings.build()
    module.at(500)
    stats = module.adapt(SIGN, 100, Means(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(0.0)))
    assert_close(stats["augment/p"].item(), 0.1, rtol=1e-6, atol=0)
    ada, noise = module.parts
    assert noise.std == 0.1
    again = settings.build()
    again.load_state_dict(module.state_dict())
    assert again.parts[0].p == ada.p


def test_an_empty_chain_does_nothing():
    x = torch.randn(2, 1, 3, 3)
    assert Chain().build()(x) is x
    assert math.isclose(Chain().held_out, 0)
