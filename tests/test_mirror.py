"""Mirrored images as more data: which, where they are read, and where they are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from reference import small
from runs import assert_resumes

from equipoise import data
from equipoise.config import build, components, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.types import component
from equipoise.data import (
    ArrayDataset,
    DatasetConfig,
    Digits,
    Few,
    Images,
    InfiniteBatches,
    Points,
    StackedDigits,
    hold_out,
    mirrored,
    prepare,
    to_uint8,
)
from equipoise.data.mirror import Mirrored
from equipoise.data.resident import ResidentMirrored
from equipoise.evaluate import open_source
from equipoise.models import Head, SemiSupervised
from equipoise.rules import NoGrowth, Stages
from equipoise.train.batches import Streams

PIXELS = np.random.default_rng(0).integers(256, size=(6, 3, 4, 4), dtype=np.uint8)
IMAGES = ArrayDataset(PIXELS, np.array([0, 1, 2, 0, 1, 2]))
BOTH = np.concatenate([PIXELS, PIXELS[..., ::-1]])


def images_of(batch):
    return to_uint8(batch.x).numpy()


def test_image_n_plus_i_is_image_i_mirrored():
    """Left and right, not up and down; with its label. Wrong: the flipped ones between the others, or all flipped."""
    both = mirrored(IMAGES)
    assert len(both) == 12
    order = np.array([0, 6, 11, 5, 7, 3])
    assert np.array_equal(both.read(order), BOTH[order])
    assert both.labels.tolist() == [0, 1, 2, 0, 1, 2] * 2
    assert (both.spec, both.class_names, both.slow) == (IMAGES.spec, IMAGES.class_names, IMAGES.slow)
    assert both.read(np.array([], np.int64)).shape == (0, 3, 4, 4)
    assert mirrored(IMAGES, mirror=False) is IMAGES


def test_on_a_device_the_same():
    """The images are held once."""
    held = ResidentMirrored(Mirrored(IMAGES), torch.device("cpu"))
    order = np.array([0, 6, 11, 5, 7, 3])
    x, y = held.take(order)
    assert np.array_equal(x.numpy(), BOTH[order])
    assert y.tolist() == [0, 0, 2, 2, 1, 0]
    assert (len(held), len(held.images)) == (12, 6)
    assert np.array_equal(held.read(order), BOTH[order])
    ours, theirs = (next(InfiniteBatches(source, 8, seed=1)) for source in (held, mirrored(IMAGES)))
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.y, theirs.y)


def test_an_epoch_holds_each_image_and_each_mirrored_image_once():
    shares = [InfiniteBatches(mirrored(IMAGES), 12, seed=3, rank=rank, world=2) for rank in (0, 1)]
    epoch = np.concatenate([images_of(next(share)) for share in shares])
    assert sorted(x.tobytes() for x in epoch) == sorted(x.tobytes() for x in BOTH)


def test_every_data_set_has_the_field():
    """Old texts parse, and texts with it."""
    configs = [c for c in vars(data).values() if isinstance(c, type) and issubclass(c, DatasetConfig) and c is not DatasetConfig]
    assert len(configs) >= 8
    for config in configs:
        (field,) = (f for f in dataclasses.fields(config) if f.name == "mirror")
        assert field.default is False
        assert field.kw_only
    known = components()
    assert parse("Few(of=Digits(),num=5)", known) == Few(Digits(), 5)
    assert parse("Images(path='a',mirror=true)", known) == Images("a", mirror=True)
    cfg = small(**{"data.mirror": True})
    assert cfg.data == Digits(mirror=True)
    assert parse(to_text(cfg), known) == cfg
    assert parse(to_text(cfg).replace("mirror=True", ""), known) == small()
    fields = {"generator": cfg.generator, "discriminator": cfg.discriminator}
    assert build({**fields, "data.path": "a", "data.mirror": True}).data == Images("a", mirror=True)
    assert override(cfg, {"data.path": "b"}).data == Images("b")


@component
class Own(DatasetConfig):
    """A data set of a user's own."""

    def build(self):
        return IMAGES


@dataclasses.dataclass(frozen=True)
class Plain(DatasetConfig):
    """One without the library's decorator."""

    num: int = 3

    def build(self):
        return IMAGES


def test_a_data_set_of_ones_own_has_it_too():
    assert Own(mirror=True).mirror
    assert Plain(4, mirror=True).mirror
    assert Plain().mirror is False


def test_where_it_is_refused():
    for make in (Few, StackedDigits):
        with pytest.raises(ValueError, match=rf"{make.__name__}.of=.*give {make.__name__}\(mirror=True\)"):
            make(of=Digits(mirror=True))
    with pytest.raises(ValueError, match="a point has no left and right"):
        Points(mirror=True)


def test_evaluations_see_the_images_alone(tmp_path):
    config = Few(num=7, mirror=True)
    assert len(config.build()) == 7
    assert open_source(config).held == 7
    np.savez(tmp_path / "images.npz", x=PIXELS.transpose(0, 2, 3, 1))
    prepare(tmp_path / "images.npz", tmp_path / "set", shard_gb=1e-7)
    prepared = Images(tmp_path / "set", mirror=True).build()
    assert np.array_equal(mirrored(prepared).read(np.arange(12)), BOTH)


def drawn(cfg, dataset, held_out, epochs=1):
    streams = Streams(cfg, Stages(NoGrowth(), 4, cfg.batch_size), dataset, held_out)
    with streams.opened(0, torch.device("cpu")) as endless:
        return [next(endless) for _ in range(epochs)]


def test_a_run_trains_on_both_and_leaves_held_out_images_as_they_are():
    """Labelled images are mirrored with their labels: as many labels are read as without."""
    rest, unseen = hold_out(IMAGES, 1 / 3)
    cfg = small(**{"data.mirror": True, "batch_size": 8, "head": Head(SemiSupervised(labelled=3))})
    (both,) = drawn(cfg, rest, unseen)
    originals = rest.read(np.arange(4))
    assert sorted(x.tobytes() for x in images_of(both.batch)) == sorted(
        x.tobytes() for x in np.concatenate([originals, originals[..., ::-1]])
    )
    assert {x.tobytes() for x in images_of(both.held_out)} == {x.tobytes() for x in unseen.read(np.arange(2))}
    labelled = {x.tobytes() for x in images_of(both.labelled)}
    assert len(labelled) == 6
    assert labelled == {np.ascontiguousarray(x[..., ::-1]).tobytes() for x in images_of(both.labelled)}
    (plain,) = drawn(dataclasses.replace(cfg, data=Digits()), rest, unseen)
    assert {x.tobytes() for x in images_of(plain.batch)} == {x.tobytes() for x in originals}


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    assert_resumes(small(**{"data": Few(num=20, mirror=True), "report.snapshot_kimg": 0.032}), tmp_path)
