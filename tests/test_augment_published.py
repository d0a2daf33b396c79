"""ADA's transforms against outputs of the published pipe (NVlabs/stylegan2-ada-pytorch), each at p = 1."""

from __future__ import annotations

import json

import pytest
import torch
from fixtures import numbers
from loops import loop_over
from torch.testing import assert_close

from equipoise.augment.affine import compose, rotate, rotate90, scale, stretch, translate, translate_pixels, x_flip
from equipoise.augment.color import recolor
from equipoise.augment.corruption import corrupt, hole
from equipoise.augment.draws import Draws
from equipoise.augment.filters import band_filter
from equipoise.augment.resampling import resample
from equipoise.augment.wavelets import SYM2, SYM6, band_kernels

BLIT = {"xflip": x_flip, "rotate90": rotate90, "xint": translate_pixels}
GEOMETRIC = {"scale": scale, "rotate": rotate, "aniso": stretch, "xfrac": translate}
COLOR = {"brightness": 0, "contrast": 1, "lumaflip": 2, "hue": 3, "saturation": 4}
FILTER = {"imgfilter": None, "imgfilter_band0": 0, "imgfilter_band1": 1, "imgfilter_band2": 2, "imgfilter_band3": 3}


class Given(Draws):
    """Draws in which every uniform number of [0, 1) is `uniform` and every standard normal one is `normal`.

    only: index of the one transform that fires; None fires all.
    """

    def __init__(self, x, uniform, normal, only=None):
        super().__init__(torch.tensor(1.0), x)
        self.given, self.only, self.asked = (uniform, normal), only, 0

    def fire(self, value, neutral, p=None):
        fires = self.only in (None, self.asked)
        self.asked += 1
        return value if fires else torch.full_like(value, neutral)

    def uniform(self, low, high, *shape):
        return torch.full((self.n, *shape), low + (high - low) * self.given[0], dtype=self.dtype)

    def normal(self, std, *shape):
        return torch.full((self.n, *shape), std * self.given[1], dtype=self.dtype)

    def integer(self, stop):
        return self.uniform(0, stop).floor()


def at(percentile, x, only=None):
    """Every number at `percentile` of its distribution; of normal ones the published pipe leaves out a factor √2."""
    p = torch.tensor(percentile, dtype=torch.float64)
    return Given(x, p.item(), (2 * p - 1).erfinv().item(), only)


def warped(x, percentile, names):
    """The published transforms `names`, resampled once. Their translations are ours with the other sign."""
    matrix = torch.eye(3, dtype=x.dtype)
    for name in names:
        mirrored = name in ("xint", "xfrac")
        draws = at(1 - percentile if mirrored else percentile, x)
        matrix = matrix @ compose([(BLIT | GEOMETRIC)[name]], draws)
    return resample(x, matrix, delay=5.0)


def cases(file, transform):
    """(x, percentile, published result) for all percentiles and images of one transform."""
    arrays = numbers(f"stylegan/augment_{file}.npz")
    keys = [name for name in arrays if name.startswith(f"out/{transform}/")]
    assert keys
    for key in keys:
        _, _, percentile, image = key.split("/")
        x = torch.from_numpy(arrays[f"in/{image}"]).double() / 127.5 - 1
        yield x, float(percentile), torch.from_numpy(arrays[key]).double()


def assert_published(result, published):
    assert_close(result, published, rtol=0, atol=1e-5)  # theirs are of float32


@loop_over("name", [*BLIT, *GEOMETRIC])
def test_geometry(name):
    for x, percentile, published in cases("blit" if name in BLIT else "geom", name):
        assert_published(warped(x, percentile, [name]), published)


@loop_over("name", COLOR)
def test_color(name):
    for x, percentile, published in cases("color", name):
        assert_published(recolor(x, at(percentile, x, only=COLOR[name])), published)


@loop_over("name", FILTER)
def test_filter(name):
    for x, percentile, published in cases("filter", name):
        assert_published(band_filter(x, at(percentile, x, only=FILTER[name])), published)


def test_cutout():
    for x, percentile, published in cases("corrupt", "cutout"):
        assert_published(corrupt(x, at(percentile, x, only=1)), published)


@loop_over("name", ["blit", "geom", "bg", "color", "bgc", "bgcf"])
def test_several_at_once(name):
    """In the published order: one resampling for all geometry, then colours, then the filter."""
    chosen = json.loads(str(numbers("stylegan/augment_combined.npz")["config"]))["combos"][name]
    geometry = [transform for transform in chosen if transform in BLIT | GEOMETRIC]
    for x, percentile, published in cases("combined", name):
        y = warped(x, percentile, geometry) if geometry else x
        y = recolor(y, at(percentile, y)) if "hue" in chosen else y
        y = band_filter(y, at(percentile, y)) if "imgfilter" in chosen else y
        assert_published(y, published)


def test_coefficients_of_the_filters():
    arrays = numbers("stylegan/augment_filter.npz")
    for ours, name in ((SYM2, "sym2"), (SYM6, "sym6")):
        assert_close(torch.tensor(ours), torch.tensor(arrays[f"filter/{name}"]), rtol=0, atol=1e-11)
    assert_close(torch.tensor(band_kernels()), torch.tensor(arrays["filter/Hz_fbank"]).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("group", [recolor, band_filter], ids=["color", "filter"])
def test_groups_of_all_numbers_alike(group, request):
    arrays = numbers("zoo/ada.npz")
    keys = [name for name in arrays if name.startswith(request.node.callspec.id)]
    assert len(keys) == 3
    for key in keys:
        uniform, normal = (float(number) for number in key.split("_")[1::2])
        x = torch.from_numpy(arrays["x"]).double()
        assert_published(group(x, Given(x, uniform, normal)), torch.from_numpy(arrays[key]).double())


def test_holes():
    arrays = numbers("zoo/ada.npz")
    keys = [name for name in arrays if name.startswith("cutout/")]
    assert len(keys) == 3
    for key in keys:
        centre = float(key.split("_")[1])
        inside = hole(torch.full((1, 2), centre), 28, 28)[0, 0]
        assert torch.equal(inside, torch.from_numpy(arrays[key]))
