"""Prepared sets: equal to their source pixel for pixel, and never half there."""

from __future__ import annotations

import json
import os
import re
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equipoise.data import Digits, Images, open_dataset, prepare, prepared
from equipoise.types import ImageSpec


def everything(dataset) -> np.ndarray:
    return dataset.read(np.arange(len(dataset)))


def picture_folder(folder: Path, sizes=(8,) * 5, classes=("b", "a")) -> Path:
    for i, size in enumerate(sizes):
        place = folder / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def same(a, b) -> None:
    assert a.spec == b.spec
    np.testing.assert_array_equal(everything(a), everything(b), strict=True)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.class_names and list(a.class_names)) == (b.class_names and list(b.class_names))


class TestRoundTrip:
    @pytest.mark.parametrize("options", [{}, {"resolution": 6}, {"resolution": 11, "channels": 1}])
    @pytest.mark.parametrize("chunk", [1, 1000, 1 << 24])
    def test_a_folder(self, tmp_path, monkeypatch, options, chunk):
        monkeypatch.setattr(prepared, "CHUNK", chunk)
        source = picture_folder(tmp_path / "in")
        result = prepare(source, tmp_path / "deep" / "out", **options)
        same(result, Images(source, **options).build())
        same(Images(tmp_path / "deep" / "out").build(), result)
        assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out"]

    def test_digits_by_name(self, tmp_path):
        same(prepare("digits", tmp_path / "out"), Digits().build())
        info = json.loads((tmp_path / "out" / "info.json").read_text())
        assert info["source"] == "digits"
        assert (info["images"], info["channels"], info["resolution"], info["num_classes"]) == (10000, 1, 28, 10)

    def test_a_word_takes_options_and_a_folder_of_that_name_needs_its_path(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Digits, "build", lambda self: open_dataset(tmp_path / "few.npz"))
        x = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
        np.savez(tmp_path / "few.npz", x=x, y=[0, 1, 0])
        picture_folder(tmp_path / "digits", sizes=(8, 8))
        monkeypatch.chdir(tmp_path)
        assert prepare("digits", "a", resolution=5, channels=3).spec == ImageSpec(5, 3, 2)
        same(prepare("./digits", "b"), Images(tmp_path / "digits").build())

    def test_unlabelled(self, tmp_path):
        result = prepare(picture_folder(tmp_path / "in", classes=("only",)), tmp_path / "out")
        assert (result.labels, result.class_names, result.spec.num_classes) == (None, None, 0)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.npy", "info.json"]

    def test_names_without_images_are_kept(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=[2, 0], class_names=["a", "b", "c", "d"])
        result = prepare(tmp_path / "a.npz", tmp_path / "out")
        assert result.spec.num_classes == 4
        assert list(result.class_names) == ["a", "b", "c", "d"]

    def test_it_is_a_memory_map_and_a_plain_npy_file(self, tmp_path):
        result = prepare(picture_folder(tmp_path / "in"), tmp_path / "out")
        assert isinstance(result.images, np.memmap)
        assert not result.images.flags.writeable
        images = np.load(tmp_path / "out" / "images.npy")
        assert (images.shape, images.dtype, images.flags.c_contiguous) == ((5, 3, 8, 8), np.uint8, True)

    def test_a_prepared_set_can_be_resized_and_prepared_again(self, tmp_path):
        first = prepare(picture_folder(tmp_path / "in"), tmp_path / "first")
        assert Images(tmp_path / "first", resolution=4, channels=1).build().spec == ImageSpec(4, 1, 2)
        same(prepare(tmp_path / "first", tmp_path / "second"), first)


class Many:
    """A data set that makes its images when asked, so that all memory in use is `prepare`'s."""

    spec, labels, class_names, slow = ImageSpec(32, 3), None, None, True

    def __len__(self) -> int:
        return 4000

    def read(self, indices):
        return np.broadcast_to((indices % 251).astype(np.uint8)[:, None, None, None], (len(indices), 3, 32, 32)).copy()


def test_memory_does_not_grow_with_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "CHUNK", 1 << 16)
    tracemalloc.start()
    try:
        prepared.write_prepared(Many(), tmp_path / "out", "many")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20  # of 12 MB
    np.testing.assert_array_equal(everything(Images(tmp_path / "out").build()), everything(Many()))


class TestFailure:
    def fails(self, tmp_path: Path, source: Path | str, *words: str) -> None:
        """`prepare` raises with these words, and leaves nothing behind."""
        (tmp_path / "results").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="(?s)" + ".*".join(re.escape(word) for word in words)):
            prepare(source, tmp_path / "results" / "out")
        assert list((tmp_path / "results").iterdir()) == []

    def test_out_exists(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("work")
        with pytest.raises(ValueError, match="out exists already: choose another"):
            prepare("digits", tmp_path / "out")
        assert (tmp_path / "out" / "precious").read_text() == "work"

    def test_a_bad_image_in_the_middle(self, tmp_path, monkeypatch):
        monkeypatch.setattr(prepared, "CHUNK", 1)
        source = picture_folder(tmp_path / "in", sizes=(32,) * 9)
        file = source / "a" / "5.png"
        file.write_bytes(file.read_bytes()[:200])
        self.fails(tmp_path, source, "5.png cannot be read as an image")

    def test_mixed_sizes(self, tmp_path):
        source = picture_folder(tmp_path / "in", sizes=(8, 9))
        self.fails(tmp_path, source, "different sizes", "--resolution R")

    @pytest.mark.parametrize("options", [{"channels": 2}, {"resolution": 0}])
    @pytest.mark.parametrize("word", [True, False])
    def test_impossible_targets(self, tmp_path, options, word):
        source = "digits" if word else picture_folder(tmp_path / "in")
        with pytest.raises(
            ValueError, match=r"expected resolution >= 1 and channels 1 \(grey\) or 3 \(colour\), got res"
        ):
            prepare(source, tmp_path / "out", **options)

    def test_missing_source(self, tmp_path):
        self.fails(tmp_path, tmp_path / "gone", "no file or directory")

    def test_full_disk(self, tmp_path):
        """A limit on file size stands in for a full disk: both make a write raise OSError half way."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            self.fails(tmp_path, "digits", "cannot write", "out", "File too large", "Nothing was left behind")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_out_below_a_file(self, tmp_path):
        (tmp_path / "file").write_text("not a directory")
        with pytest.raises(ValueError, match=r"cannot write .*file/out: Not a directory"):
            prepare("digits", tmp_path / "file" / "out")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_directory(self, tmp_path):
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(ValueError, match=r"cannot write .*locked/out: Permission denied"):
            prepare("digits", tmp_path / "locked" / "out")

    def test_interrupted(self, tmp_path, monkeypatch):
        class Interrupted(Many):
            def read(self, indices):
                if indices[0] > 1000:
                    raise KeyboardInterrupt("stop")
                return super().read(indices)

        monkeypatch.setattr(prepared, "CHUNK", 1 << 16)
        with pytest.raises(KeyboardInterrupt, match="stop"):
            prepared.write_prepared(Interrupted(), tmp_path / "out", "many")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("damage", ["cut", "no info", "other shape", "bad info", "no labels"])
    def test_a_damaged_set_does_not_open(self, tmp_path, damage):
        out = tmp_path / "out"
        prepare(picture_folder(tmp_path / "in"), out)
        if damage == "cut":
            (out / "images.npy").write_bytes((out / "images.npy").read_bytes()[:-1])
        elif damage == "no info":
            (out / "info.json").unlink()
        elif damage == "other shape":
            np.save(out / "images.npy", np.zeros((5, 3, 8, 9), np.uint8))
        elif damage == "bad info":
            (out / "info.json").write_text("{}")
        else:
            (out / "labels.npy").unlink()
        with pytest.raises(ValueError, match=r"out is not a complete prepared set \(.+\): prepare it again"):
            Images(out).build()
