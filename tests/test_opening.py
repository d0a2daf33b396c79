"""The first minutes of a run: its first lines, its first pictures, the time left."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from loops import loop_over
from rich.console import Console
from tiny import recipe

from equipoise.compute import described
from equipoise.data import ArrayDataset, hold_out
from equipoise.losses import R1, ByResolution, LazyStep
from equipoise.models import NoConditioning
from equipoise.runs import progress
from equipoise.runs.progress import Progress, Speed, duration
from equipoise.train import GAN
from equipoise.train.opening import facts
from equipoise.train.snapshot import real_pictures


def test_the_first_lines_say_what_is_trained_on_what(tmp_path):
    cfg = recipe()
    gan, (dataset, held_out) = GAN.build(cfg, cfg.data.build().spec), hold_out(cfg.data.build(), 0.1)
    lines = facts(gan, dataset, held_out, 0, tmp_path)
    assert lines["data"] == "9,000 pictures, 28x28 grey, 10 classes, 1,000 more held out of training"
    count = sum(p.numel() for p in gan.G.parameters())
    assert lines["G"] == f"SANDigitsGenerator, {count:,} parameters"
    assert lines["length"] == "0.16 kimg in batches of 8"
    assert str(tmp_path / "samples") in lines["pictures"]
    assert "by rule" not in lines
    ruled = replace(cfg, terms=(LazyStep(R1(gamma=ByResolution(0.01), every=16)), R1(gamma=3.0)))
    assert facts(GAN.build(ruled, dataset.spec), dataset, None, 0, tmp_path)["by rule"] == "terms.0.term.gamma=0.98"
    blind = replace(cfg, head=replace(cfg.head, conditioning=NoConditioning()), data=replace(cfg.data, mirror=True))
    lines = facts(GAN.build(blind, dataset.spec), dataset, None, 80, tmp_path)
    assert lines["data"].endswith(", 10 classes that this recipe does not use, each also mirrored")
    assert lines["length"] == "0.16 kimg in batches of 8, 0.08 of them done"


@loop_over(
    ("there", "version", "sees", "said"),
    [
        (True, None, False, "; this torch has no CUDA although a GPU is there"),
        (True, "13.0", False, "; torch sees no GPU although one is there: look at its driver and CUDA_VISIBLE_DEVICES"),
        (True, "13.0", True, ""),  # the CPU was asked for
        (False, None, False, ""),
    ],
)
def test_a_gpu_that_is_not_used_is_named(monkeypatch, there, version, sees, said):
    monkeypatch.setattr(described, "nvidia_here", lambda: there)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: sees)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert described.described(torch.device("cpu")) == f"CPU, 1 thread{said}"


# ---- the first pictures ----------------------------------------------------------------------------------


def pictures(labels):
    """A data set whose picture i is filled with i."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(4, 2).repeat(4, 3)
    return ArrayDataset(images, np.array(labels, np.int64), ("a", "b", "c"))


def test_real_pictures_lie_where_their_class_lies_in_a_grid_of_g():
    labels = [0, 0, 2, 1, 0, 2, 1, 0]
    dataset = pictures(labels)
    shown = real_pictures(dataset, 9, 0, classes=3)
    assert shown.shape == (9, 4, 4, 1)
    chosen = shown[:, 0, 0, 0].tolist()
    assert [labels[i] for i in chosen] == [0, 1, 2] * 3
    assert len(set(chosen[::3])) == 3  # three of class 0, none twice
    assert len(set(chosen[1::3])) == 2  # all of class 1, then the first again


def test_few_real_pictures_without_classes_are_shown_once_each_in_an_order_of_the_seed():
    dataset = pictures([0, 1, 2] * 10)
    a, b = (real_pictures(dataset, 100, seed, classes=0)[:, 0, 0, 0].tolist() for seed in (0, 1))
    assert sorted(a) == sorted(b) == list(range(30))
    assert a != b


# ---- the time left ---------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Call it with seconds, and time passes."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: sum(now))
    return now.append


def test_the_speed_leaves_out_the_first_iteration_as_soon_as_it_can(clock):
    speed = Speed(nimg=500)
    assert speed.left(100) == "?"
    for seconds, per_second in ((50.0, 2.0), (10.0, 10.0), (30.0, 5.0)):  # a hundred images each
        clock(seconds)
        speed.mark(speed.newest[1] + 100)
        assert speed.per_second == pytest.approx(per_second)
    for _ in range(30):
        clock(100.0)
        speed.mark(speed.newest[1] + 100)
    assert speed.per_second == pytest.approx(1.0)  # the earlier ones are forgotten
    assert speed.left(90) == "0:01:30"


@loop_over(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (45296, "12:34:56"), (86400, "1 day 0:00:00"), (180000, "2 days 2:00:00")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_the_time_left_is_there_after_every_slow_iteration(monkeypatch, clock, terminal):
    """Of a minute each: rich forgets samples that old. Nothing is wider than a terminal of 80 columns."""
    file = io.StringIO()
    console = partial(Console, file=file, force_terminal=terminal, width=80, _environ={})
    monkeypatch.setattr(progress, "Console", lambda **_: console())
    bar = Progress(total_kimg=10.0, start=0)
    averages = {"images_per_second": 1.6666, "D/loss": 1.0, "G/loss": -2.0, "D/real": 0.5, "D/fake": -0.25}
    bar.open()
    for i in range(1, 6):
        clock(60.0)
        bar.move(i * 100)
        (task,) = bar.bar.tasks
        assert (task.completed, task.fields["left"]) == (i / 10, duration((100 - i) * 60))
    bar.show(500, averages)
    bar.bar.refresh()
    bar.close()
    said = file.getvalue()
    assert said.count("left at 1.67 images per second") == 1
    assert "1:35:00 left" in said
    assert "D 1.00 G -2.00 D(real) 0.50 D(fake) -0.25" in " ".join(said.split())
    if not terminal:
        assert said.splitlines()[-1].startswith("0.5/10 kimg  1:35:00 left  2 img/s  D 1.00")
