"""Rectangles: read with `shape=(H, W)`, made by networks that double a small rectangle, refused by all others."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from commands import run
from loops import loop_over
from PIL import Image
from runs import assert_resumes
from tiny import recipe
from torch import nn

from equipoise import models
from equipoise.augment import ADA, DiffAugment
from equipoise.config import components, override
from equipoise.core.grammar import parse
from equipoise.core.types import ImageSpec, component
from equipoise.data import Images, InfiniteBatches, Padded, TorchImages, handedness, mirrored, open_dataset, prepare
from equipoise.data.arrays import ArrayDataset
from equipoise.data.resident import Resident
from equipoise.evaluate import evaluate
from equipoise.features import CellFeatures
from equipoise.generate import Generator
from equipoise.losses import ByResolution
from equipoise.losses.gamma import gamma_for
from equipoise.models import (
    DCGANDiscriminator,
    DCGANGenerator,
    DiscriminatorConfig,
    GeneratorConfig,
    Head,
    MLPDiscriminator,
    MLPGenerator,
    Projection,
)
from equipoise.nn.sizes import start
from equipoise.train import GAN, choice_for, images_per_second, iteration_flops, train
from equipoise.view import write_report
from equipoise.weights import NoNormalizer

SHAPES = [(16, 24), (24, 16), (64, 36), (36, 64)]


@pytest.fixture
def photos(tmp_path):
    """100 pictures of 3:2, in two classes: a red left half, a green right half, and a blue top row."""
    draw = np.random.default_rng(0)
    for i in range(100):
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[:, :30, 0], pixels[:, 30:, 1], pixels[:10, :, 2] = 150 + i, 100, draw.integers(100, 200)
        place = tmp_path / "photos" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "photos"


# ---- the spec --------------------------------------------------------------------------------------------


def test_a_spec_knows_height_and_width():
    spec = ImageSpec(64, 3, 10, width=96)
    assert (spec.shape, spec.image, spec.size, spec.square) == ((64, 96), (3, 64, 96), "96x64", False)
    assert ImageSpec(64).shape == (64, 64)
    assert ImageSpec(64, width=64) == ImageSpec(64)  # an equal width is a square


def test_a_square_is_stored_as_before_and_a_rectangle_with_its_width():
    assert ImageSpec(8, 1, 2).stored == {"resolution": 8, "channels": 1, "num_classes": 2}
    assert repr(ImageSpec(8, 1, 2)) == "ImageSpec(resolution=8, channels=1, num_classes=2)"
    for spec in (ImageSpec(8, 1, 2), ImageSpec(8, width=12)):
        assert ImageSpec.read(json.loads(json.dumps(spec.stored))) == spec


@loop_over(
    "values", [{}, {"resolution": 8}, {**ImageSpec(8).stored, "width": 0}, {**ImageSpec(8).stored, "depth": 3}, [8], 8]
)
def test_a_damaged_spec_is_not_read(values):
    assert ImageSpec.read(values) is None


# ---- data ------------------------------------------------------------------------------------------------


def test_a_picture_of_the_same_proportions_is_only_resized(photos):
    expected = np.asarray(Image.open(photos / "a" / "0.png").resize((24, 16), Image.Resampling.LANCZOS))
    for fit in ("crop", "pad", "stretch"):
        dataset = Images(photos, shape=(16, 24), fit=fit).build()
        assert dataset.spec == ImageSpec(16, 3, 2, width=24)
        np.testing.assert_array_equal(dataset.read(np.array([0]))[0], expected.transpose(2, 0, 1))


def test_crop_pad_and_stretch_of_a_rectangle():
    pixels = np.random.default_rng(1).integers(0, 256, (3, 20, 40), dtype=np.uint8)  # 2:1

    def read(fit, shape):
        return ArrayDataset(pixels[None], shape=shape, fit=fit).read(np.array([0]))[0]

    np.testing.assert_array_equal(read("crop", (20, 30)), pixels[:, :, 5:35])  # 3:2: the sides go
    np.testing.assert_array_equal(read("crop", (10, 40)), pixels[:, 5:15])  # 4:1: top and bottom go
    padded = read("pad", (30, 40))
    np.testing.assert_array_equal(padded[:, 5:25], pixels)
    assert not padded[:, [*range(5), *range(25, 30)]].any()
    padded = read("pad", (20, 50))
    np.testing.assert_array_equal(padded[:, :, 5:45], pixels)
    assert not padded[:, :, [*range(5), *range(45, 50)]].any()
    stretched = Image.fromarray(pixels.transpose(1, 2, 0)).resize((12, 18), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(read("stretch", (18, 12)), np.asarray(stretched).transpose(2, 0, 1))


def test_height_comes_first(photos):
    """The blue rows are at the top, the red columns on the left."""
    x = Images(photos, shape=(16, 24)).build().read(np.arange(5))
    assert x.shape == (5, 3, 16, 24)
    assert (x[:, 2, :2] > 80).all()
    assert (x[:, 2, 8:] < 20).all()
    assert (x[:, 0, :, :8] > 140).all()
    assert (x[:, 0, :, 16:] < 20).all()


def test_a_mirrored_rectangle_swaps_left_and_right(photos):
    dataset = Images(photos, shape=(16, 24)).build()
    both = mirrored(dataset)
    np.testing.assert_array_equal(both.read(np.array([103])), dataset.read(np.array([3]))[..., ::-1])
    assert handedness(dataset) > 0.9  # red is always on the left


def test_squares_of_photos_are_the_bytes_of_shape_with_equal_sides(photos):
    for fit in ("crop", "pad", "stretch"):
        sizes = {"resolution": 16}, {"shape": (16, 16)}
        a, b = (Images(photos, fit=fit, **size).build().read(np.arange(30)) for size in sizes)
        np.testing.assert_array_equal(a, b)
    assert Images(photos, shape=(16, 16)).build().spec == ImageSpec(16, 3, 2)


def test_a_prepared_set_of_rectangles_opens_as_it_is(photos, tmp_path):
    said = run("data", "prepare", photos, tmp_path / "set", "--shape", 16, 24)
    assert "wrote" in said
    for options in ({}, {"shape": (16, 24)}):
        dataset = Images(tmp_path / "set", **options).build()
        assert dataset.spec == ImageSpec(16, 3, 2, width=24)
        expected = Images(photos, shape=(16, 24)).build()
        np.testing.assert_array_equal(dataset.read(np.arange(30)), expected.read(np.arange(30)))
    assert Images(tmp_path / "set", resolution=8).build().spec.shape == (8, 8)
    assert prepare(photos, tmp_path / "other", shape=(8, 12)).spec.shape == (8, 12)


def test_arrays_torch_sets_frames_and_devices_hold_rectangles(tmp_path):
    x = np.random.default_rng(2).integers(0, 256, (120, 16, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x)
    dataset = open_dataset(tmp_path / "a.npz", shape=(16, 24))
    np.testing.assert_array_equal(dataset.read(np.arange(9)), x[:9].transpose(0, 3, 1, 2))
    assert Resident(dataset, torch.device("cpu")).images.shape == (120, 3, 16, 24)
    assert next(InfiniteBatches(dataset, 4, seed=0)).x.shape == (4, 3, 16, 24)
    items = TorchImages([(image, 0) for image in x], shape=(16, 24))
    np.testing.assert_array_equal(items.read(np.arange(9)), x[:9].transpose(0, 3, 1, 2))
    framed = Padded(Images(tmp_path / "a.npz", shape=(16, 24)), resolution=32).build()
    assert framed.spec == ImageSpec(32)
    expected = np.pad(x[:2].transpose(0, 3, 1, 2), [(0, 0), (0, 0), (8, 8), (4, 4)])
    np.testing.assert_array_equal(framed.read(np.arange(2)), expected)


def test_sizes_that_do_not_go_together_are_refused(photos, tmp_path):
    with pytest.raises(ValueError, match=r"give resolution for squares, or shape=\(HEIGHT, WIDTH\) for rectangles"):
        Images(photos, resolution=16, shape=(16, 24))
    with pytest.raises(ValueError, match="shape"):
        Images(photos, shape=(0, 24))
    with pytest.raises(ValueError, match=r"expected shape=\(HEIGHT, WIDTH\), both at least 1 pixel"):
        open_dataset(photos, shape=(0, 24))
    with pytest.raises(ValueError, match=r"is not square.*shape=\(HEIGHT, WIDTH\) makes rectangles"):
        Images(photos).build()
    said = run("data", "prepare", photos, tmp_path / "set", "--shape", 16, 24, "--resolution", 16, code=2)
    assert "give resolution for squares" in " ".join(said.split())
    with pytest.raises(ValueError, match=r"have 24x16 pixels, and resolution=20 is smaller.*of 24 or more"):
        Padded(Images(photos, shape=(16, 24)), resolution=20).build()


def test_a_config_says_the_shape_and_reads_it_back(photos):
    data = Images(str(photos), shape=(16, 24))
    assert "shape=(16, 24)" in repr(data)
    assert parse(repr(data), components()) == data
    assert "shape=" not in repr(Images("a", resolution=16))  # configs of squares read as before
    cfg = override(recipe(), {"data": data})
    assert override(cfg, {"data.shape": [24, 16]}).data == replace(data, shape=(24, 16))


# ---- networks --------------------------------------------------------------------------------------------

NETWORKS = [
    value
    for name in models.__all__
    if isinstance(value := getattr(models, name), type)
    and issubclass(value, GeneratorConfig | DiscriminatorConfig)
    and value not in (GeneratorConfig, DiscriminatorConfig)
]
ABLE = [network for network in NETWORKS if network.rectangles]


def narrow(network):
    sizes = {"width": network.narrowest, "channel_base": 64, "w_dim": 8, "z_dim": 16, "skip_z": False, "blocks": 1}
    return network(**{name: value for name, value in sizes.items() if hasattr(network, name)})


@loop_over("network", ABLE)
@loop_over("shape", SHAPES)
def test_every_family_that_can_makes_or_reads_rectangles(network, shape):
    torch.manual_seed(0)
    spec = ImageSpec(shape[0], num_classes=2, width=shape[1])
    y, x = torch.arange(4) % 2, torch.rand(4, 3, *shape)
    if issubclass(network, GeneratorConfig):
        G = narrow(network)
        x = G.build(spec)(torch.randn(4, G.z_dim), y)
        assert x.shape == (4, 3, *shape)
        assert x.isfinite().all()
        return
    D = Head(Projection()).build(narrow(network).build, spec)
    x.requires_grad_()
    logits = D(x, y).fun
    assert logits.shape[0] == 4
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert (gradient.abs().amax((0, 1)) > 0).all()  # D sees every pixel


def test_most_families_can():
    assert len(ABLE) >= 18
    squares = {network.__module__.rpartition(".")[2] for network in NETWORKS if not network.rectangles}
    assert squares == {"stylegan", "stylegan3", "progan", "digits"}


@loop_over("network", [network for network in NETWORKS if not network.rectangles])
def test_other_families_refuse(network):
    build = network().build if issubclass(network, GeneratorConfig) else partial(Head().build, network().build)
    with pytest.raises(ValueError, match=r"is for square images|28x28 images and this data has 24x16"):
        build(ImageSpec(16, width=24))


def test_a_rectangle_starts_as_small_as_it_can():
    starts = {(64, 36): (16, 9, 2), (96, 64): (6, 4, 4), (144, 256): (9, 16, 4), (480, 320): (15, 10, 5)}
    for shape, begin in starts.items():
        assert start(ImageSpec(shape[0], width=shape[1]), "N") == begin
    assert start(ImageSpec(28), "N") == (7, 7, 2)  # squares as before


@loop_over("shape", [(64, 37), (66, 100), (33, 64), (5, 64), (6, 9)])
def test_a_shape_that_does_not_fit_is_told_shapes_that_do(shape):
    with pytest.raises(ValueError, match=r"shape=.*\(height, width\) is not of this kind") as error:
        start(ImageSpec(shape[0], width=shape[1]), "DCGANGenerator")
    near = [(int(h), int(w)) for h, w in re.findall(r"'data\.shape=\((\d+), (\d+)\)'", str(error.value))]
    assert len(near) == 2
    for height, width in near:
        start(ImageSpec(height, width=width), "DCGANGenerator")
        assert abs(height - shape[0]) <= 8
        assert abs(width - shape[1]) <= 8


@component
class Linear(GeneratorConfig):
    """A network of a user's own, which reads `spec.shape`."""

    able: ClassVar[bool] = True

    def build(self, spec):
        return nn.Sequential(nn.Linear(self.z_dim, 3 * spec.shape[0] * spec.shape[1]), nn.Unflatten(1, spec.image))


@component
class LinearForRectangles(Linear):
    """The same, which says so."""

    rectangles: ClassVar[bool] = True


def test_an_own_network_must_say_that_it_makes_rectangles():
    spec = ImageSpec(16, width=24)
    cfg = replace(recipe(), generator=Linear(), discriminator=MLPDiscriminator(width=16))
    cfg = replace(cfg, head=Head(), d_normalizer=NoNormalizer())
    with pytest.raises(ValueError, match=r"Linear is for square images.*declares rectangles: ClassVar\[bool\] = True"):
        GAN.build(cfg, spec)
    assert GAN.build(replace(cfg, generator=LinearForRectangles()), spec).G(torch.zeros(2, 128)).shape == (2, 3, 16, 24)


def test_models_are_drawn_and_counted_as_rectangles():
    assert "3x64x96" in run("models", "dcgan_64", "spec.width=96")
    assert "StyleGAN3Generator is for square" in " ".join(
        run("models", "stylegan3_t_256", "spec.width=96", code=2).split()
    )


# ---- around them -----------------------------------------------------------------------------------------


def test_gamma_counts_pixels():
    rule = ByResolution(0.5)
    assert gamma_for(rule, ImageSpec(16, width=64), 8) == pytest.approx(rule.at(size=32, batch=8))


@loop_over("augment", [ADA(initial=0.9), DiffAugment()])
def test_augmentations_keep_the_shape(augment):
    torch.manual_seed(0)
    x = torch.rand(8, 3, 16, 24) * 2 - 1
    y = augment.build()(x)
    assert y.shape == x.shape
    assert not torch.equal(x, y)


def test_features_read_rectangles():
    x = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    for name in ("colours", "cells"):
        assert len(CellFeatures(name)(x).features) == 3


# ---- a run -----------------------------------------------------------------------------------------------


def small(photos, **fields):
    return replace(
        recipe(),
        data=Images(str(photos), shape=(16, 24)),
        generator=DCGANGenerator(z_dim=4, width=4),
        discriminator=DCGANDiscriminator(width=4, norm="none"),
        **fields,
    )


def test_a_run_resumes_bit_for_bit(photos, tmp_path):
    assert_resumes(small(photos, augment=DiffAugment()), tmp_path)


ASKED = 'frechet,kid(subsets=2,subset_size=20),swd,nearest(space="pixels"),probe(train=30,validation=10,test=10)'


def test_a_run_is_sampled_measured_shown_and_exported(photos, tmp_path):
    cfg = small(photos)
    train(cfg, tmp_path / "run")
    with Image.open(max((tmp_path / "run" / "samples").glob("0*.png"))) as opened:
        grid = opened.copy()
    assert (grid.width % 24, grid.height % 16) == (0, 0)
    assert grid.width // 24 != grid.height // 24  # not laid out for squares
    G = Generator.from_pretrained(tmp_path / "run")
    assert G.spec == ImageSpec(16, 3, 2, width=24)
    assert G.sample(5).shape == (5, 16, 24, 3)
    assert "24x16" in G._repr_html_()
    found = evaluate(tmp_path / "run", cfg.data, metrics=ASKED, features="cells", num=30)
    assert all(np.isfinite(number.value) for number in found.numbers.values())
    assert {"frechet", "kid", "sliced_wasserstein", "nearest"} <= found.numbers.keys()
    assert found.report["images"]["size"] == [16, 24, 3]
    turned = replace(cfg.data, shape=(24, 16))
    with pytest.raises(ValueError, match=r"have images of 24x16 and 16x24 pixels: give the same shape of both"):
        evaluate(tmp_path / "run", turned, metrics='nearest(space="pixels")', num=30)
    with pytest.raises(ValueError, match=r"reads images of 16x24x3, but the images of .* are 24x16x3"):
        evaluate(tmp_path / "run", turned, metrics="probe(train=30,validation=10,test=10)", num=30)
    write_report(tmp_path / "run")
    run("export", tmp_path / "run", "--to", "hub-folder", "--out", tmp_path / "hub", "--with-discriminator")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "24×16 pixels" in card
    assert "(16, 16, 24, 3) uint8" in card
    assert Generator.from_pretrained(tmp_path / "hub").spec == G.spec
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["spec"]["width"] == 24


def test_another_run_starts_from_rectangles(photos, tmp_path):
    from equipoise.rules import Transfer

    train(small(photos), tmp_path / "a")
    wide = replace(small(photos), data=Images(str(photos), shape=(16, 32)))
    train(replace(wide, start=Transfer(run=str(tmp_path / "a"))), tmp_path / "b")


def test_cost_and_speed_count_rectangles(photos):
    cfg = small(photos)
    flops = [iteration_flops(cfg, ImageSpec(16, 3, 2, width=width)) for width in (16, 32)]
    assert flops[1] > 1.5 * flops[0]
    assert images_per_second(cfg, ImageSpec(16, 3, 2, width=24)) > 0


def test_auto_refuses_rectangles(photos):
    with pytest.raises(ValueError, match="auto is for square images"):
        choice_for(Images(str(photos), shape=(16, 24)), minutes=1.0)


def test_mlps_take_any_shape(photos, tmp_path):
    cfg = small(photos)
    cfg = replace(
        cfg,
        data=Images(str(photos), shape=(7, 11)),
        generator=MLPGenerator(z_dim=4, width=16),
        discriminator=MLPDiscriminator(width=16),
        d_normalizer=NoNormalizer(),
    )
    train(cfg, tmp_path / "run")
    assert Generator.from_pretrained(tmp_path / "run").sample(2).shape == (2, 7, 11, 3)
