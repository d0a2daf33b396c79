"""The attack itself: does it do what it says, and would it notice?"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from loops import loop_over

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks import attack, hostile, victims
from benchmarks.victims import Ended, Victim, fingerprint, full_after, killed_at, litter, refused_at

RECIPES = ["recipes"]


@pytest.fixture
def command(monkeypatch):
    """Replaces what `equipoise` does in the fork; returns the setter."""

    def replace(act):
        monkeypatch.setattr(victims, "exit_code", lambda _: act())

    return replace


@loop_over(
    ("code", "said", "outcome"),
    [
        (0, "", "finished"),
        (1, "error: the disk is full", "one line"),
        (2, "Error: no such option", "one line"),
        (1, "", "crash"),  # it said nothing
        (0, "Traceback (most recent call last):\n", "traceback"),
        (-11, "", "crash"),
        (-9, "", "killed"),
        (143, "stopped", "stopped"),
        (None, "", "hang"),
    ],
)
def test_ends_of_commands_are_told_apart(code, said, outcome):
    assert Ended(code, said, 0.0).outcome == outcome


def test_a_difference_and_litter_are_wrong_however_well_the_command_ended():
    good = Ended(0, "", 0.0)
    assert attack.case("", good).outcome == "done"
    assert attack.case("", good, same=True).outcome == "same"
    assert attack.case("", good, same=False).outcome == "different"
    assert attack.case("", good, same=True, left=[".x.1.tmp"]).outcome == "litter"
    assert attack.case("", Ended(-9, "", 0.0)).outcome in attack.WRONG  # nobody meant to kill it
    assert set(attack.RIGHT).isdisjoint(attack.WRONG)


def test_a_command_says_its_words_to_the_log(tmp_path):
    ended = Victim(RECIPES, tmp_path / "log").end()
    assert ended.outcome == "finished"
    assert "quickstart" in ended.said


def test_a_hang_ends_when_patience_does(tmp_path, command):
    command(lambda: time.sleep(60))
    ended = Victim([], tmp_path / "log").end(patience=0.2)
    assert ended.outcome == "hang"
    assert ended.seconds < 10


def test_an_error_nobody_caught_is_a_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("equipoise.cli.app.app", lambda _: 1 / 0)
    assert Victim([], tmp_path / "log").end().outcome == "traceback"


def write(folder, names):
    for name in names:
        (folder / name).write_text(name)
    return 0


def test_death_and_full_disks_come_at_the_operation(tmp_path, command):
    inside = tmp_path / "run"
    inside.mkdir()
    (tmp_path / "elsewhere").write_text("operations outside do not count")
    command(lambda: (tmp_path / "elsewhere").write_text("x") and write(inside, "abcd"))
    assert Victim([], tmp_path / "log", killed_at(2, inside)).end().code == -signal.SIGKILL
    assert sorted(path.name for path in inside.iterdir()) == ["a", "b"]
    ended = Victim([], tmp_path / "log", refused_at(3, inside)).end()
    assert sorted(path.name for path in inside.iterdir()) == ["a", "b", "c"]
    assert "No space left on device" in ended.said or ended.code != 0
    assert Victim([], tmp_path / "log", refused_at(4, inside)).end().code == 0


def test_a_file_grows_to_the_limit(tmp_path, command):
    command(lambda: (tmp_path / "big").write_bytes(bytes(1000)) and 0)
    Victim([], tmp_path / "log", full_after(600)).end()
    assert (tmp_path / "big").stat().st_size == 600


def test_a_fingerprint_sees_every_bit_of_what_counts(tmp_path):
    for name in ("checkpoints/000000000080/G", "checkpoints/000000000160/G", "generator/g", "samples/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "generator/.g.7.tmp").write_bytes(b"litter")
    before = fingerprint(tmp_path)
    assert litter(tmp_path) == ["generator/.g.7.tmp"]
    (tmp_path / "checkpoints/000000000080/G").write_bytes(b"1")
    assert fingerprint(tmp_path) == before  # an older checkpoint need not be the same
    for name in before:
        (tmp_path / name).write_bytes(b"1")
        assert fingerprint(tmp_path) != before
        (tmp_path / name).write_bytes(b"0")


@loop_over("kind", [*hostile.DAMAGES, "deleted", "a folder", "a loop"])
def test_every_damage_changes_a_file(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(b"{}" * 50)
    hostile.damaged(path, kind, random.Random(1))
    assert not (path.is_file() and path.read_bytes() == b"{}" * 50)


@loop_over("kind", hostile.INPUTS)
def test_every_input_is_made_and_is_the_same_for_a_seed(tmp_path, kind):
    if "device" not in kind:
        places = []
        for name in "ab":
            (tmp_path / name).mkdir()
            places.append(hostile.make_input(kind, tmp_path / name / "stranger", random.Random(3)))
        assert places[0].name == places[1].name
        names = [sorted(path.name for path in place.parent.rglob("*")) for place in places]
        assert names[0] == names[1]
    else:
        assert os.path.lexists(hostile.make_input(kind, tmp_path / "stranger", random.Random(3)))


def test_the_table_has_a_row_for_each_campaign():
    text = attack.table({"kills": [attack.Case("a", "same", "", 2.0), attack.Case("b", "hang", "", 30.0)], "pairs": []})
    assert "| kills | 2 | 1 | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 30.0 |" in text
    assert text.count("\n") == 4
