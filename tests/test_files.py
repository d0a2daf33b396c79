"""Files are read whatever they hold, and what is damaged is kept under another name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from loops import loop_over

from equipoise.core.files import free_name, read_file, read_json, remove_litter, set_aside


@loop_over(
    ("content", "message"),
    [
        (b"\xff\xfe\xfa", "x holds no JSON that can be read: .*can't decode"),
        (b"", "x holds no JSON that can be read: Expecting value"),
        ("{", "x holds no JSON that can be read: Expecting property name"),
        ("[" * 100_000, "x holds no JSON that can be read: it is nested too deeply"),
        ('{"a":' * 100_000, "x holds no JSON that can be read: it is nested too deeply"),
        ("1" * 5000, "x holds no JSON that can be read: Exceeds the limit"),
        ("[]", "x holds a JSON list, and a dict was expected"),
        ("null", "x holds a JSON NoneType, and a dict was expected"),
    ],
)
def test_json_of_another_shape_is_one_error_that_names_the_file(content, message):
    with pytest.raises(ValueError, match=message):
        read_json(content, "x")


def test_json_of_the_expected_kind():
    assert read_json(b'{"a": [1, 2.5]}', "x") == {"a": [1, 2.5]}
    assert read_json("[1]", "x", list) == [1]


def test_folders_pipes_and_large_files_are_not_read(tmp_path):
    (tmp_path / "small").write_bytes(b"1234")
    assert read_file(tmp_path / "small", 4) == b"1234"
    with pytest.raises(ValueError, match="it has 4 bytes, and at most 3 were expected"):
        read_file(tmp_path / "small", 3)
    with pytest.raises(ValueError, match="not a regular file"):
        read_file(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="not a regular file"):  # and not: wait for a writer
            read_file(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError, match="gone"):
        read_file(tmp_path / "gone")


def test_what_is_set_aside_never_replaces_what_was_set_aside_before(tmp_path):
    for content in "abc":
        (tmp_path / "x.json").write_text(content)
        set_aside(tmp_path / "x.json")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"x.json.damaged": "a", "x.json.damaged.2": "b", "x.json.damaged.3": "c"}
    (tmp_path / "y.damaged").symlink_to("nowhere")
    assert free_name(tmp_path / "y").name == "y.damaged.2"


@pytest.mark.skipif(os.name != "posix", reason="whether a process lives is asked on POSIX alone")
def test_litter_of_processes_that_ended_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = [f".config.txt.{ended.pid}.tmp", f".000000000040.png.{os.getpid()}.tmp", ".x.9999999999.tmp"]
    stays = [f".config.txt.{os.getppid()}.tmp", ".config.txt.tmp", f"config.txt.{ended.pid}.tmp", f".{ended.pid}.tmp"]
    for name in [*gone, *stays]:
        (tmp_path / name).write_text("half")
    folder = tmp_path / f".folder.{ended.pid}.tmp"
    folder.mkdir()
    remove_litter(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*stays, folder.name])
    remove_litter(tmp_path / "gone")
