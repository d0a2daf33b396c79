"""What happens between iterations: the caller's own events, and when the library's are due."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from runs import lines
from tiny import recipe

from equipoise.rules import Report
from equipoise.train import Moment, train
from equipoise.train.clock import Clock


def test_an_event_sees_every_iteration_and_may_report(tmp_path):
    cfg, seen = recipe(), []

    def mine(now: Moment) -> None:
        seen.append((now.nimg, now.increment, now.last, now.saved))
        now.stats.add({"mine": torch.tensor(float(now.nimg))}, now.nimg)

    train(cfg, tmp_path / "a", events=[mine])
    total = round(cfg.total_kimg * 1000)
    assert [nimg for nimg, *_ in seen] == list(range(cfg.batch_size, total + 1, cfg.batch_size))
    assert [last for *_, last, _ in seen] == [False] * (len(seen) - 1) + [True]
    written = sorted(int(path.name) for path in (tmp_path / "a/checkpoints").iterdir())
    assert written == [nimg for nimg, *_, saved in seen if saved][-2:]
    mean_of_window = [line["mine"] for line in lines(tmp_path / "a")]
    assert mean_of_window[0] == pytest.approx(sum(n for n, *_ in seen if n <= 32) / 4)
    train(cfg, tmp_path / "b")
    for a, b in zip(lines(tmp_path / "a"), lines(tmp_path / "b"), strict=True):
        assert {name: value for name, value in a.items() if name not in ("mine", "images_per_second")} == {
            name: value for name, value in b.items() if name != "images_per_second"
        }


def test_an_event_that_raises_ends_the_run_where_its_checkpoint_is(tmp_path):
    def stop(now: Moment) -> None:
        if now.nimg > 50:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train(recipe(), tmp_path, events=[stop])
    assert (tmp_path / "checkpoints/000000000040").exists()
    train(recipe(), tmp_path)


def test_an_event_sees_the_averaged_generator(tmp_path):
    last = []
    returned = train(recipe(), tmp_path, events=[lambda now: last.append(now.ema.model) if now.last else None])
    for a, b in zip(last[0].parameters(), returned.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_are_kept_as_asked(keep, tmp_path):
    train(replace(recipe(), report=Report(snapshot_kimg=0.016, keep=keep)), tmp_path)
    total = round(recipe().total_kimg * 1000)
    written = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert len(written) == keep
    assert written[-1] == total


def test_grids_and_checkpoints_come_by_the_clock(tmp_path, monkeypatch):
    """Grids after 1, 2, 4 ... minutes, and no more once one was due for its kimg; a checkpoint when the last is old."""
    seconds = [0]
    monkeypatch.setattr("equipoise.train.clock.time.monotonic", lambda: sum(seconds))
    report = Report(log_kimg=1.0, snapshot_kimg=0.3, minutes=1.0, checkpoint_minutes=2.5, keep="all")
    train(replace(recipe(), total_kimg=0.4, report=report), tmp_path, events=[lambda now: seconds.append(20)])
    assert (tmp_path / "samples/real.png").exists()
    grids = sorted(int(path.stem) for path in (tmp_path / "samples").glob("0*"))
    assert grids == [0, 32, 56, 104, 200, 304, 400]  # after 0, 60, 120, 240, 480 seconds; then by images
    written = [int(path.name) for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert written == [72, 144, 216, 288, 304, 376, 400]  # 160 seconds after the one before, or by images


def test_early_grids_and_old_checkpoints_can_be_left_out(monkeypatch):
    monkeypatch.setattr("equipoise.train.clock.time.monotonic", lambda: 1e9)
    last = SimpleNamespace(written=0.0)
    for minutes, limit, nimg, due in (
        (None, None, 0, (False, False)),
        (1.0, None, 0, (True, False)),
        (1.0, None, 1000, (False, False)),
        (None, 1.0, 1000, (False, True)),
    ):
        clock = Clock(Report(minutes=minutes, checkpoint_minutes=limit, snapshot_kimg=1.0), last)
        clock.begun = 0.0
        assert clock.due(nimg) == due
