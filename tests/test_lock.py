"""One process trains in a directory at a time, and a process that ends, in whatever way, frees it."""

from __future__ import annotations

import errno
import os
import re
import signal
from pathlib import Path

import pytest
from loops import loop_over
from processes import on_two_processes
from runs import newest
from tiny import recipe

from equipoise.config import override
from equipoise.core.types import RunError
from equipoise.runs import Checkpoints, lock, locked
from equipoise.runs.lock import HELD, Lock
from equipoise.train import train

pytest.importorskip("fcntl", reason="locks are a POSIX feature")


def refused(run_dir: Path, pid: int) -> None:
    with pytest.raises(RunError, match=rf"is in use by process {pid} on .* since 20\d\d-.*\. Wait until it ends") as e:
        Lock(run_dir).acquire()
    assert "\n" not in str(e.value)


def taken(run_dir: Path) -> Lock:
    lock = Lock(run_dir)
    lock.acquire()
    return lock


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_the_holder_is_named_and_kill_9_frees_the_directory(tmp_path):
    reader, writer = os.pipe()
    other = os.fork()
    if other == 0:
        try:
            held = taken(tmp_path)
            os.write(writer, b"held")
            signal.pause()
            held.release()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 4) == b"held"
        refused(tmp_path, other)
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    first = taken(tmp_path)  # its note is still there
    refused(tmp_path, os.getpid())
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_training_holds_it_from_before_the_checkpoints_are_read_until_it_returns_or_raises(tmp_path, monkeypatch):
    """And a run that is refused leaves the other one as it is."""
    run_dir, load = tmp_path / "run", Checkpoints.load_latest
    cfg = override(recipe(), {"total_kimg": 0.016, "report.snapshot_kimg": 0.008})
    seen = []

    def meanwhile(checkpoints):
        before = sorted(run_dir.rglob("*"))
        with pytest.raises(RunError, match=f"in use by process {os.getpid()} "):
            train(cfg, run_dir)
        seen.append(sorted(run_dir.rglob("*")) == before)
        return load(checkpoints)

    monkeypatch.setattr(Checkpoints, "load_latest", meanwhile)
    train(cfg, run_dir)
    train(override(cfg, {"total_kimg": 0.024}), run_dir)  # one after the other is fine
    monkeypatch.setattr(Checkpoints, "load_latest", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division"):
        train(override(cfg, {"total_kimg": 0.032}), run_dir)
    assert seen == [True, True]
    assert newest(run_dir).name == "000000000024"
    assert not (run_dir / ".lock").exists()
    assert not HELD


def test_a_run_that_is_refused_leaves_no_directory_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("equipoise.train.start.world_size", lambda: 3)
    with pytest.raises(ValueError, match="must be a multiple of the 3 processes"):
        train(recipe(), tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(tmp_path):
    first = taken(tmp_path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"here")
        signal.pause()
    assert os.read(reader, 4) == b"here"
    try:
        os.close(first.descriptor)  # as the system does when it ends the parent
        HELD.discard(first.descriptor)
        taken(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_programs_that_are_started_do_not_inherit_it(tmp_path):
    first = taken(tmp_path)
    assert not os.get_inheritable(first.descriptor)
    first.release()


def test_a_file_that_its_holder_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """A opens, B releases and removes the file, A locks what nobody else can open: A has to begin again."""
    first, flock = taken(tmp_path), lock.fcntl.flock

    def late(descriptor, how):
        first.release()
        monkeypatch.setattr(lock.fcntl, "flock", flock)
        return flock(descriptor, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    second = taken(tmp_path)
    refused(tmp_path, os.getpid())
    second.release()


def test_a_directory_made_anew_keeps_the_lock_of_its_new_run(tmp_path):
    old = taken(tmp_path / "run")
    (tmp_path / "run" / ".lock").unlink()
    (tmp_path / "run").rmdir()
    new = taken(tmp_path / "run")
    old.release()
    refused(tmp_path / "run", os.getpid())
    new.release()


def test_a_disk_without_locks_is_named_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with locked(tmp_path):
        assert re.search(r"warning: .* cannot be locked \(No locks available\)", capsys.readouterr().err)
    monkeypatch.setattr(lock, "LOCKS", False)  # Windows
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


@loop_over("note", [b"", b"\xff\xfe\x00\n[[[", b"x" * 10**6])
def test_a_note_of_any_bytes_is_one_short_line(tmp_path, note):
    first = taken(tmp_path)
    (tmp_path / ".lock").write_bytes(note)
    with pytest.raises(RunError, match=r"is in use by ") as e:
        Lock(tmp_path).acquire()
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 500 + len(str(tmp_path))
    first.release()


def test_a_directory_that_nobody_may_write_to_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_two_processes_rank_0_locks_and_both_are_refused(tmp_path):
    def work(rank):
        with locked(tmp_path / "run"):
            held = len(HELD)
        (tmp_path / "other").mkdir(exist_ok=True)
        first = taken(tmp_path / "other") if rank == 0 else None
        try:
            with locked(tmp_path / "other"):
                said = ""
        except RunError as error:
            said = str(error)
        del first
        return held, said

    (first, said), (second, same) = on_two_processes(work, tmp_path / "ranks")
    assert (first, second) == (1, 0)
    assert "is in use by process" in said
    assert same == said
