"""A few images of a data set: as many of each class, the same ones for everybody, unchanged."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import loop_over
from PIL import Image
from tiny import recipe

from equipoise.config import components, override, to_text
from equipoise.core.grammar import parse
from equipoise.data import ArrayDataset, Digits, Few, Images, InfiniteBatches, few, hold_out, prepare


def dataset(labels, size: int = 4) -> ArrayDataset:
    """Image i is filled with the number i."""
    labels = None if labels is None else np.asarray(labels)
    count = 200 if labels is None else len(labels)
    return ArrayDataset(
        np.arange(count, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 1, size, size), np.uint8), labels
    )


def numbers(subset) -> list[int]:
    """Which images of `dataset()` these are."""
    return subset.read(np.arange(len(subset)))[:, 0, 0, 0].tolist()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_classes_get_equally_many_until_one_is_used_up(given_labels, data):
    labels = np.unique(given_labels, return_inverse=True)[1]  # every class from 0 on has an image
    num = data.draw(st.integers(1, len(labels)))
    chosen = few(dataset(labels), num)
    assert len(chosen) == len(set(numbers(chosen))) == num
    assert chosen.labels.tolist() == labels[numbers(chosen)].tolist()
    have, got = np.bincount(labels), np.bincount(chosen.labels, minlength=labels.max() + 1)
    left = got[got < have]
    if left.size:
        assert left.max() - left.min() <= 1
        assert got.max() <= left.min() + 1  # no class has more than one that could still give
    used_up = got[got == have]
    assert num == len(labels) or not used_up.size or used_up.max() <= left.min() + 1


def test_a_hundred_labels_are_ten_per_class():
    """The setting of Salimans et al. 2016."""
    digits = Digits().build()
    assert np.bincount(few(digits, 100).labels).tolist() == [10] * 10
    assert sorted(np.bincount(few(digits, 15).labels, minlength=10)) == [1] * 5 + [2] * 5
    assert len(set(few(digits, 10).labels)) == 10


@loop_over("labels", [None, np.arange(200) % 7], ids=["unlabelled", "labelled"])
def test_the_choice_is_random_and_a_larger_one_contains_it(labels):
    whole = dataset(labels)
    chosen = [set(numbers(few(whole, num))) for num in (1, 20, 21, 100, 200)]
    assert all(small < large for small, large in itertools.pairwise(chosen))
    assert chosen[-1] == set(range(200))
    assert chosen[1] != set(range(20))
    assert 60 < np.mean(list(chosen[3])) < 140  # from everywhere
    shown = next(InfiniteBatches(whole, 100, seed=0)).x[:, 0, 0, 0]
    first_epoch = set(((shown + 1) * 127.5).round().int().tolist())
    assert 25 < len(chosen[3] & first_epoch) < 75  # it is no run's beginning
    _, held_out = hold_out(whole, 0.5)
    assert 25 < len(chosen[3] & set(numbers(held_out))) < 75  # nor what is held out


def test_the_choice_is_the_same_at_all_times():
    """As it was when this was written: another one would mix up runs that are to be compared."""
    assert Few(num=5).build().indices.tolist() == [518, 879, 2511, 5139, 7007]


def test_nothing_but_the_number_of_images_changes():
    digits, chosen = Digits().build(), Few(num=12).build()
    assert chosen.spec == digits.spec  # ten classes, even where few images leave some out
    assert Few(num=3).build().spec.num_classes == 10
    assert chosen.class_names == digits.class_names
    assert chosen.slow == digits.slow
    assert np.array_equal(chosen.read(np.array([3, 0])), digits.read(chosen.indices[[3, 0]]))
    assert np.array_equal(chosen.labels, digits.labels[chosen.indices])
    unlabelled = few(dataset(None), 9)
    assert unlabelled.labels is None
    assert unlabelled.spec.num_classes == 0


def test_folders_zips_and_prepared_sets_give_the_same_few(tmp_path):
    for i in range(30):
        place = tmp_path / "set" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(place / f"{i:02d}.png")
    sources = [tmp_path / "set", shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "set")]
    prepare(tmp_path / "set", tmp_path / "prepared")
    sources.append(tmp_path / "prepared")
    built = [Few(of=Images(source), num=7).build() for source in sources]
    assert all(numbers(one) == numbers(built[0]) for one in built)
    assert sorted(np.bincount(built[0].labels)) == [3, 4]
    assert list(built[0].class_names) == ["a", "b"]
    assert built[0].slow
    assert next(InfiniteBatches(built[2], 16, seed=0)).x.shape == (16, 1, 8, 8)  # more than there are images


@loop_over("num", [0, 11, -1])
def test_more_images_than_there_are_is_refused(num):
    with pytest.raises(ValueError, match=rf"cannot choose {num} images of a data set of 10: ask for 1 to 10"):
        few(dataset([0] * 10), num)


def test_as_a_config():
    with pytest.raises(ValueError, match="of a data set of 10000"):
        Few(num=10001).build()
    for bad in ({"num": 0}, {"num": 2.5}, {"of": "digits"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Few(**bad)
    assert parse("Few(of=Digits,num=500)", components()) == Few() == Few(of=Digits(), num=500)
    cfg = replace(recipe(), data=Few(of=Few(of=Images("photos", resolution=28), num=50), num=7))
    assert parse(to_text(cfg), components()) == cfg
    changed = override(cfg, {"data.num": 8, "data.of.of": Digits()})
    assert changed.data == Few(of=Few(num=50), num=8)
