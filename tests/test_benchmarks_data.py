"""The benchmarks of data at scale: that they measure what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import loop_over

from equipoise.core.types import ImageSpec
from equipoise.data import ArrayDataset, Images, batches
from equipoise.data.resident import Resident

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks import large_data, loader

X = np.random.default_rng(0).integers(0, 256, (25, 3, 8, 8), np.uint8)


@loop_over("channels", [1, 3])
@loop_over("labels", [None, np.arange(25) % 3])
def test_every_form_holds_the_same_images(tmp_path, channels, labels):
    names = None if labels is None else ["a", "b", "c"]
    found = loader.forms(ArrayDataset(X[:, :channels], labels, names), 20, tmp_path)
    assert len(list((tmp_path / "ten").glob("images-*.npy"))) == 10
    assert {form: dataset.slow for form, dataset in found.items()} == {
        "memory": False,
        "prepared, one file": True,
        "prepared, ten files": True,
        "zip of PNGs": True,
        "PNGs": True,
    }
    for dataset in found.values():
        assert dataset.spec == ImageSpec(8, channels, 0 if labels is None else 3)
        np.testing.assert_array_equal(dataset.read(np.arange(20)), X[:20, :channels])
        np.testing.assert_array_equal(dataset.labels, None if labels is None else labels[:20])


def test_what_a_gpu_would_keep_is_read_all_the_same(monkeypatch):
    """A device that keeps everything, as a GPU with room does, whose place the processor takes."""
    read = []

    class Noted(ArrayDataset):
        def read(self, indices):
            read.extend(indices)
            return super().read(indices)

    monkeypatch.setattr(batches, "resident", lambda dataset, device: Resident(dataset, torch.device("cpu")))
    rate = loader.reading(Noted(X), 10, 3, torch.device("cpu"))
    rate(0)
    rate(30)
    assert len(read) == 60


def test_the_loader_against_training(tmp_path, capsys):
    tiny = f"{Path(__file__).parent / 'tiny.py'}:recipe"
    sizes = ["--images", "40", "--rounds", "1", "--batches", "2", "--iterations", "1"]
    loader.main(["--recipe", tiny, *sizes, "--out", str(tmp_path / "out.json"), "d_steps=2"])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["settings"]["changes"] == ["d_steps=2"]
    assert len(found["images_per_second"]) == 6
    for name, (rate,) in found["images_per_second"].items():
        assert rate > 0
        assert found["times_training"][name] == [rate / found["images_per_second"]["training"][0]]
    assert "prepared, ten" in capsys.readouterr().out


def test_a_hollow_set_is_black_and_takes_nothing_of_the_disk(tmp_path):
    spec = ImageSpec(16, 3)
    on_disk = large_data.hollow(tmp_path, 20_000, spec, 6e6)
    dataset = Images(tmp_path).build()
    assert (len(dataset), dataset.spec) == (20_000, spec)
    assert len(list(tmp_path.glob("images-*.npy"))) == 3
    assert on_disk < 100_000  # of 15 MB
    assert not dataset.read(np.array([0, 7812, 19_999])).any()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the memory of a process")
def test_memory_of_training_on_a_hollow_set(tmp_path, capsys):
    before = large_data.resident()
    held = torch.ones(50_000_000, dtype=torch.uint8)
    assert large_data.resident()["own"] - before["own"] == pytest.approx(50, abs=5)
    del held
    sizes = ["--images", "2000", "--resolution", "16", "--batch", "4", "--iterations", "2"]
    large_data.main([*sizes, "--folder", str(tmp_path), "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["bytes"] == 2000 * 768
    assert found["after"]["own"] + found["after"]["files"] <= found["after"]["most"] * 1.01
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert "0.008 kimg" in capsys.readouterr().out
