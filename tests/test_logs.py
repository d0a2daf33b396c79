"""A damaged log, and the other texts of a run: what is intact stays, what is not is named and kept aside."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from fixtures import fixture
from loops import loop_over
from runs import assert_same_run, lines
from tiny import recipe

from equipoise.config import override
from equipoise.generate import Generator
from equipoise.generate.modelcard import environment
from equipoise.runs import Stats, read_log, read_run, statistics_of
from equipoise.train import train

GOOD = [b'{"nimg": 8, "kimg": 0.008, "D/loss": 1.5}', b'{"nimg": 16, "kimg": 0.016, "D/loss": -2}']
BAD = {
    "bytes": b'{"nimg": 8, "kimg": 0.008, "D/\xff\xfe": 1}',
    "text": b"killed",
    "half": b'{"nimg": 8, "ki',
    "empty": b"",
    "list": b"[8, 0.008]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "no nimg": b'{"kimg": 0.008}',
    "no kimg": b'{"nimg": 8}',
    "text for nimg": b'{"nimg": "8", "kimg": 0.008}',
    "true for nimg": b'{"nimg": true, "kimg": 0.008}',
    "a part of an image": b'{"nimg": 8.5, "kimg": 0.0085}',
    "negative": b'{"nimg": -8, "kimg": -0.008}',
    "huge": b'{"nimg": 8, "kimg": 0.008, "D/loss": 1' + b"0" * 400 + b"}",
    "too many digits": b'{"nimg": 1' + b"0" * 5000 + b', "kimg": 0.008}',
    "NaN": b'{"nimg": 8, "kimg": 0.008, "D/loss": NaN}',
    "infinite": b'{"nimg": 8, "kimg": 0.008, "D/loss": 1e999}',
    "null for a number": b'{"nimg": 8, "kimg": 0.008, "D/loss": null}',
    "nested": b'{"nimg": 8, "kimg": 0.008, "D/loss": {}}',
}


def write(stats: Stats, nimg: int) -> None:
    stats.add({"D/loss": torch.tensor(1.0)}, nimg)
    stats.write(nimg, "none")


@loop_over("bad", BAD.values(), ids=BAD.keys())
def test_a_damaged_line_is_kept_aside_and_the_others_stay_byte_for_byte(bad, tmp_path, capsys):
    path = tmp_path / "stats.jsonl"
    path.write_bytes(b"\n".join([GOOD[0], bad, GOOD[1], b'{"nimg": 24, "kimg": 0.024}', b""]))
    with Stats(tmp_path, total_kimg=1, start=16):
        pass
    assert path.read_bytes() == b"\n".join([*GOOD, b""])
    assert (tmp_path / "stats.jsonl.damaged").read_bytes() == bad + b"\n"
    said = capsys.readouterr().err
    assert f"1 damaged line (2) of {path} moved to stats.jsonl.damaged" in said
    assert said.count("\n") == 1


def test_intact_lines_leave_the_file_untouched_and_nothing_is_said(tmp_path, capsys):
    path = tmp_path / "stats.jsonl"
    path.write_bytes(b"\n".join([*GOOD, b""]))
    before = path.stat().st_ino
    with Stats(tmp_path, total_kimg=1, start=16):
        pass
    assert path.stat().st_ino == before
    assert not list(tmp_path.glob("*.damaged"))
    assert capsys.readouterr().err == ""


def test_a_last_line_without_its_newline_stays_if_it_is_intact(tmp_path):
    (tmp_path / "stats.jsonl").write_bytes(b"\n".join(GOOD))
    with Stats(tmp_path, total_kimg=1, start=16) as stats:
        write(stats, 24)
    assert [line["nimg"] for line in lines(tmp_path)] == [8, 16, 24]


def test_a_second_damage_keeps_the_first(tmp_path):
    for bad in (b"one", b"two"):
        (tmp_path / "stats.jsonl").write_bytes(bad + b"\n")
        with Stats(tmp_path, total_kimg=1, start=16):
            pass
    assert (tmp_path / "stats.jsonl.damaged").read_bytes() == b"one\n"
    assert (tmp_path / "stats.jsonl.damaged.2").read_bytes() == b"two\n"


def test_a_log_that_cannot_be_read_is_renamed_and_a_new_one_begins(tmp_path, monkeypatch, capsys):
    def failing(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "stats.jsonl"
    for damage in (lambda: path.mkdir(), lambda: path.write_bytes(GOOD[0] + b"\n")):
        damage()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", failing)
            assert statistics_of(tmp_path) == []
            assert "is read without statistics" in capsys.readouterr().err
            with Stats(tmp_path, total_kimg=1, start=16) as stats:
                write(stats, 24)
        assert "renamed to stats.jsonl.damaged" in capsys.readouterr().err
        assert [line["nimg"] for line in lines(tmp_path)] == [24]
        path.unlink()
    assert (tmp_path / "stats.jsonl.damaged.2").read_bytes() == GOOD[0] + b"\n"


def test_many_damaged_lines_are_counted_and_the_first_are_named():
    log = read_log(b"x\n" * 50)
    assert log.described() == "50 damaged lines (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)"


# ---- runs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 0.08 kimg, and the same one at 0.12."""
    folder = tmp_path_factory.mktemp("runs")
    train(override(recipe(), {"total_kimg": 0.08}), folder / "short")
    shutil.copytree(folder / "short", folder / "long")
    train(override(recipe(), {"total_kimg": 0.12}), folder / "long")
    return folder


def test_a_run_with_a_damaged_log_goes_on_to_the_same_weights(finished, tmp_path, capsys):
    run_dir = shutil.copytree(finished / "short", tmp_path / "run")
    own = (run_dir / "stats.jsonl").read_bytes()
    damaged = fixture("faults/01_stats_damaged.jsonl").read_bytes()
    (run_dir / "stats.jsonl").write_bytes(own + b"\n".join([*BAD.values(), damaged]))
    assert read_run(run_dir).stats[: own.count(b"\n")] == [json.loads(line) for line in own.splitlines()]
    assert "damaged lines (" in capsys.readouterr().err
    train(override(recipe(), {"total_kimg": 0.12}), run_dir)
    assert_same_run(finished / "long", run_dir)
    assert "moved to stats.jsonl.damaged" in capsys.readouterr().err
    nimgs = [line["nimg"] for line in lines(run_dir)]
    assert {line["nimg"] for line in lines(finished / "long")} <= set(nimgs)
    assert BAD["deep"] in (run_dir / "stats.jsonl.damaged").read_bytes()


@loop_over(
    ("content", "message"),
    [
        (fixture("faults/03_config_not_utf8.txt").read_bytes, r"config\.txt is damaged: .*can't decode byte"),
        (lambda: b"", r"config\.txt is damaged: it is empty"),
        (lambda: b" \n\n", r"config\.txt is damaged: it is empty"),
        (lambda: b"-" * 2_000_000, r"config\.txt is damaged: it has 2,000,000 bytes"),
        (None, r"config\.txt is damaged: it is not a regular file"),
        (lambda: b"words", r"config\.txt.*\(?expected TrainConfig\(\.\.\.\), got 'words'"),
        (lambda: b"Hinge", r"config\.txt.*\(?expected TrainConfig\(\.\.\.\), got 'Hinge'"),
    ],
    ids=["bytes", "empty", "blank", "large", "folder", "words", "component"],
)
def test_a_config_that_is_none_is_named_and_nothing_is_written(content, message, finished, tmp_path):
    run_dir = shutil.copytree(finished / "short", tmp_path / "run")
    (run_dir / "config.txt").unlink()
    if content is None:
        (run_dir / "config.txt").mkdir()
    else:
        (run_dir / "config.txt").write_bytes(content())
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    with pytest.raises(ValueError, match=message) as e:
        train(override(recipe(), {"total_kimg": 0.12}), run_dir)
    assert len(str(e.value)) < 3000
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before
    with pytest.raises(ValueError, match=message):
        read_run(run_dir)


def test_a_long_foreign_config_is_compared_in_time_and_shown_in_part(finished, tmp_path):
    """Its lines resemble those of the other, which difflib takes minutes to match."""
    run_dir = shutil.copytree(finished / "short", tmp_path / "run")
    fields = "".join(f"    seed{i}=0,\n" for i in range(20_000))
    (run_dir / "config.txt").write_text(f"TrainConfig(\n    data=Gone(),\n{fields})\n")
    with pytest.raises(ValueError, match=r"another config, or its config\.txt is damaged(.|\n)*  - +seed0=0,\n") as e:
        train(override(recipe(), {"total_kimg": 0.12}), run_dir)
    assert str(e.value).count("\n  - ") == 20
    assert str(e.value).count("\n  ...") >= 1


def test_half_written_files_of_killed_processes_are_gone_after_the_next_start(finished, tmp_path):
    run_dir = shutil.copytree(finished / "short", tmp_path / "run")
    litter = [
        run_dir / folder / f".x.{os.getpid()}.tmp"
        for folder in ("", "checkpoints", "generator", "samples", "best", "best/generator")
    ]
    for path in litter:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    train(override(recipe(), {"total_kimg": 0.08}), run_dir)
    assert not [path for path in litter if path.exists()]


def test_a_generator_is_read_without_the_runs_other_files(finished):
    assert Generator.from_pretrained(finished / "short").nimg == 80


@loop_over(
    "content",
    [b"", b"\xff\xfe", b"words", b"equipoise: 1\ntorch: 2\n", b"[" * 100_000, b"x: " * 100, None],
    ids=["empty", "bytes", "words", "half", "deep", "keys", "unquoted"],
)
def test_an_environment_that_is_none_is_left_out_of_the_card(content, finished, tmp_path, capsys):
    path = tmp_path / "environment.txt"
    whole = (finished / "short" / "environment.txt").read_bytes()
    path.write_bytes(whole)
    assert environment(path)["command"]
    path.write_bytes(whole.replace(b"command: ", b"command: '") if content is None else content)
    assert environment(path) == {}
    assert "environment.txt is damaged" in capsys.readouterr().err
