"""A terminal that dies: closed pipes, full disks, files closed from the start."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.compute.terminal import Surviving, surviving

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # benchmarks are no part of the package

from benchmarks.victims import Victim  # noqa: E402


@pytest.fixture
def broken():
    """A text stream into a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        yield stream


def full() -> io.TextIOWrapper:
    return Path("/dev/full").open("w")


def test_a_pipe_that_nobody_reads_swallows_all_that_follows(broken):
    stream = Surviving(broken)
    for _ in range(3):
        assert stream.write("lost\n") == 5
        stream.flush()
    assert os.path.samestat(os.fstat(broken.fileno()), Path(os.devnull).stat())  # for libraries in C, too
    assert os.write(broken.fileno(), b"lost") == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_fails_at_the_flush():
    with full() as file:
        stream = Surviving(file)
        stream.write("lost\n" * 10_000)
        stream.flush()


def test_a_stream_without_a_descriptor_that_fails():
    class Failing(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    assert Surviving(Failing()).write("lost") == 4


def test_a_letter_that_the_terminal_lacks_is_escaped():
    bytes_ = io.BytesIO()
    stream = Surviving(io.TextIOWrapper(bytes_, encoding="ascii"))
    stream.write("12 × σ")
    stream.flush()
    assert bytes_.getvalue() == b"12 \\xd7 \\u03c3"


def test_other_errors_are_raised():
    with pytest.raises(TypeError, match="str"):
        Surviving(io.StringIO()).write(b"bytes")


def test_the_streams_are_given_back_and_nothing_is_left_in_them(broken, monkeypatch):
    monkeypatch.setattr(sys, "stdout", broken)
    with surviving():
        assert isinstance(sys.stdout, Surviving)
        print("lost")
        with surviving():  # a train() in a command
            print("lost")
        assert isinstance(sys.stdout, Surviving)
    assert sys.stdout is broken
    broken.flush()


CODE = f"""
import os, sys
sys.path.insert(0, {str(HERE)!r})
sys.argv[0] = "equipoise"
from equipoise.cli.app import app
app()
"""


def command(*arguments: object, redirect: str) -> subprocess.CompletedProcess[str]:
    """`equipoise` in a shell that redirects its output."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    line = f'set -o pipefail; "$0" -c "$1" "${{@:2}}" {redirect}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, CODE, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_trained(run_dir):
    (checkpoint,) = (run_dir / "checkpoints").iterdir()
    assert checkpoint.name == "000000000040"


def test_training_outlives_its_terminal(tmp_path):
    """To the end, with the usual exit code and without a word, also when the interpreter shuts down."""
    done = command("train", f"{HERE / 'tiny.py'}:recipe", tmp_path / "run", "total_kimg=0.04", redirect="2>&1 | true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_trained(tmp_path / "run")


def test_training_without_streams_reaches_its_end(tmp_path):
    """As after `>&- 2>&-`: files that a run opens get their descriptors."""

    def close():
        os.close(1)
        os.close(2)
        sys.stdout = sys.stderr = None

    arguments = ["train", f"{HERE / 'tiny.py'}:recipe", str(tmp_path / "run"), "total_kimg=0.04"]
    ended = Victim(arguments, tmp_path / "log", before=close).end(100)
    assert (ended.code, ended.said) == (0, "")
    assert_trained(tmp_path / "run")


def test_a_listing_into_a_closed_pipe_or_a_full_disk_ends_quietly():
    for redirect in ("| true", "> /dev/full"):
        done = command("recipes", redirect=redirect)
        assert (done.returncode, done.stderr) == (0, ""), redirect
