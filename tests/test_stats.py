"""What a run reports, and what stops it."""

import builtins
import time

import numpy as np
import pytest
import torch
from loops import loop_over
from runs import lines
from torch import nn

from equipoise.core.types import RunError
from equipoise.generate import png
from equipoise.runs import Stats, require_finite


def test_a_line_averages_the_window_and_the_next_window_starts_empty(tmp_path):
    with Stats(tmp_path, total_kimg=1, start=0) as stats:
        for nimg, loss in ((10, 1.0), (20, 2.0), (30, 6.0)):
            stats.add({"D/loss": torch.tensor(loss)}, nimg)
        stats.write(30, "none")
        stats.add({"D/loss": torch.tensor(5.0), "D/R1": torch.tensor(0.25)}, 40)
        stats.write(40, "none")
        stats.write(40, "none")  # an empty window writes nothing
    first, second = lines(tmp_path)
    assert (first["nimg"], first["kimg"], first["D/loss"]) == (30, 0.03, 3.0)
    assert (second["D/loss"], second["D/R1"]) == (5.0, 0.25)
    assert first["images_per_second"] > 0


def test_a_second_line_of_one_moment_has_no_speed(tmp_path):
    """As an evaluation leaves it, when a signal has asked for the checkpoint first."""
    with Stats(tmp_path, total_kimg=1, start=0) as stats:
        for name in ("D/loss", "eval/frechet"):
            stats.add({name: torch.tensor(1.0)}, 10)
            stats.write(10, "none")
    assert [line.keys() - {"nimg", "kimg"} for line in lines(tmp_path)] == [
        {"D/loss", "images_per_second"},
        {"eval/frechet"},
    ]


def test_a_resumed_run_forgets_what_was_written_after_its_checkpoint(tmp_path):
    with Stats(tmp_path, total_kimg=1, start=0) as stats:
        for nimg in (10, 20, 30):
            stats.add({"D/loss": torch.tensor(float(nimg))}, nimg)
            stats.write(nimg, "none")
    with (tmp_path / "stats.jsonl").open("a") as file:
        file.write('{"nimg": 40, "D/lo')  # killed in the middle of a line
    with Stats(tmp_path, total_kimg=1, start=20):
        pass
    assert [line["nimg"] for line in lines(tmp_path)] == [10, 20]


@loop_over("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_value_that_is_not_finite_is_named_with_its_place(tmp_path, bad):
    with Stats(tmp_path, total_kimg=1, start=0) as stats:
        stats.add({"D/loss": torch.tensor(1.0), "D/real": torch.tensor(1.0)}, 10)
        stats.add({"D/loss": torch.tensor(1.0), "D/real": torch.tensor(bad)}, 20)
        stats.add({"D/loss": torch.tensor(bad), "D/real": torch.tensor(1.0)}, 30)
        with pytest.raises(RunError, match=rf"D/real is {bad} at nimg=20\. The last good checkpoint is here"):
            stats.write(30, "here")
    assert not (tmp_path / "stats.jsonl").exists()


def test_weights_that_are_not_finite_are_never_saved():
    net = nn.Linear(2, 2)
    require_finite({"G": net}, 10, "here")
    with torch.no_grad():
        net.bias[1] = float("inf")
    with pytest.raises(RunError, match=r"the weight G\.bias holds NaN or Inf at nimg=10\. The last good .* is here"):
        require_finite({"G": net}, 10, "here")


def test_tensorboard_gets_scalars_and_grids_where_it_is_installed(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="extra `tensorboard` is not installed"
    )
    pixels = np.full((4, 6, 3), 7, np.uint8)
    with Stats(tmp_path, total_kimg=1, start=0) as stats:
        stats.add({"D/loss": torch.tensor(2.5)}, 10)
        stats.write(10, "none")
        stats.image("samples", png(pixels), pixels.shape, 10)
    time.sleep(1.1)  # files of events are read in the order of their names, which hold the second they were made in
    with Stats(tmp_path, total_kimg=1, start=10) as stats:  # resumed: the point at the checkpoint stays
        stats.add({"D/loss": torch.tensor(1.5)}, 20)
        stats.write(20, "none")
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("D/loss")] == [(10, 2.5), (20, 1.5)]
    (image,) = events.Images("samples")
    assert (image.step, image.width, image.height) == (10, 6, 4)
    assert image.encoded_image_string == png(pixels)


def test_without_tensorboard_a_run_goes_on(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    pixels = np.full((4, 6, 3), 7, np.uint8)
    with Stats(tmp_path, total_kimg=1, start=0) as stats:
        stats.add({"D/loss": torch.tensor(2.5)}, 10)
        stats.write(10, "none")
        stats.image("samples", png(pixels), pixels.shape, 10)
    assert lines(tmp_path)[0]["D/loss"] == 2.5
