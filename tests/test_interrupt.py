"""Signals: which are noted, what they ask for, and what a run has saved when."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from loops import loop_over
from runs import assert_same_run, lines, same
from safetensors.torch import load_file
from tiny import recipe
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from equipoise.cli import launch
from equipoise.compute.interrupt import SAVE, STOP, Interrupt, Interrupted, handled, terminable
from equipoise.rules import Report
from equipoise.runs import Checkpoints
from equipoise.train import Snapshots, d_step, train

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks.victims import Victim

DOCS = Path(__file__).parents[1] / "docs"


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture
def asking(monkeypatch):
    """Call it with a signal and nimg: this process gets the signal in D's update at nimg."""

    def at(number, moment):
        def step(gan, batch, nimg, *args):
            if nimg == moment:
                send(number)
            return d_step(gan, batch, nimg, *args)

        monkeypatch.setattr("equipoise.train.loop.d_step", step)

    return at


@pytest.mark.parametrize("number", STOP)
def test_a_run_is_saved_and_stopped(tmp_path, asking, number):
    """The checkpoint is written before the events, which may take long, and before the grid."""
    asking(number, 16)
    safe = {}
    with pytest.raises(Interrupted, match=r"stopped after 0\.024 of 0\.16 kimg, saved as .*24\. The same") as stop:
        train(recipe(), tmp_path, events=[lambda now: safe.update({now.nimg: now.checkpoints.last[-2:]})])
    assert stop.value.signal == number
    assert safe == {8: "et", 16: "et", 24: "24"}  # none yet, none yet
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["000000000024"]
    assert sorted(p.name for p in (tmp_path / "samples").glob("0*")) == ["000000000000.png", "000000000024.png"]


def test_sigusr1_saves_once_and_changes_nothing(tmp_path, asking):
    train(recipe(), tmp_path / "undisturbed")
    asking(signal.SIGUSR1, 144)
    train(recipe(), tmp_path / "asked")
    assert sorted(p.name for p in (tmp_path / "asked/checkpoints").iterdir()) == ["000000000152", "000000000160"]
    assert len(list((tmp_path / "asked/samples").iterdir())) == 7  # one more than undisturbed
    assert_same_run(tmp_path / "undisturbed", tmp_path / "asked")


def test_sigusr1_before_the_first_iteration_kills_nothing(tmp_path, monkeypatch):
    load = Checkpoints.load_latest
    monkeypatch.setattr(Checkpoints, "load_latest", lambda own: send(signal.SIGUSR1) or load(own))
    train(replace(recipe(), total_kimg=0.016, report=Report(log_kimg=1.0)), tmp_path)
    assert [line["nimg"] for line in lines(tmp_path)] == [8, 16]


def test_a_stop_is_not_forgotten_over_a_save():
    interrupt = Interrupt()
    for number in (signal.SIGHUP, signal.SIGUSR1):
        interrupt(number, None)
    assert [interrupt.requested() for _ in range(3)] == [signal.SIGUSR1, signal.SIGHUP, signal.SIGHUP]


def test_a_second_ctrl_c_does_not_wait():
    interrupt = Interrupt()
    interrupt(signal.SIGINT, None)
    interrupt(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        interrupt(signal.SIGINT, None)


def test_a_hang_up_that_nohup_has_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt = Interrupt()
    try:
        with handled(interrupt, *STOP, *SAVE):
            send(signal.SIGHUP)
            assert interrupt.requested() == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@loop_over("number", [number for number in STOP if number != signal.SIGINT])
def test_a_block_that_can_be_ended_names_the_signal(number):
    def work():
        send(number)
        time.sleep(10)

    with pytest.raises(Interrupted, match="nothing was left") as stop, terminable("nothing was left"):
        work()
    assert stop.value.signal == number


# ---- killed between the checkpoint and its grid ----------------------------------------------------------


class Killed(BaseException):
    """What no `except Exception` catches: as `kill -9`."""


@pytest.mark.parametrize("moment", [40, 160])
def test_a_run_killed_before_its_grid_has_all_files_after_the_next_start(tmp_path, monkeypatch, moment):
    """Also when it was done but for them."""
    train(recipe(), tmp_path / "whole")
    save = Snapshots.save

    def dying(own, net, nimg, *args):
        if nimg == moment:
            raise Killed
        save(own, net, nimg, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "save", dying)
        with pytest.raises(Killed, match=r"^$"):
            train(recipe(), tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoints" / f"{moment:012d}").is_dir()  # written first
    train(recipe(), tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    for name in (f"samples/{n:012d}.png" for n in (40, 80, 120, 160)):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    whole, killed = (load_file(tmp_path / name / "generator/generator.safetensors") for name in ("whole", "killed"))
    assert same(whole, killed)
    train(recipe(), tmp_path / "killed")  # a finished run is left as it is
    blocks = (tmp_path / "killed" / "environment.txt").read_text().count("command:")
    assert blocks == (1 if moment == 160 else 2)


# ---- torchrun --------------------------------------------------------------------------------------------


@loop_over(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "RANK='0' WORLD_SIZE='' MASTER_ADDR='' MASTER_PORT='' in the environment announce no group"),
        ({"RANK": "1"}, "Start with torchrun"),
        ({"RANK": "x", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "announce no group"),
        ({"RANK": "1", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}, "RANK below WORLD_SIZE"),
        ({"LOCAL_RANK": "first"}, "LOCAL_RANK='first' in the environment is not a process index"),
    ],
)
def test_half_a_launch_is_refused(tmp_path, monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        train(recipe(), tmp_path)
    assert not list(tmp_path.iterdir())


@loop_over(
    ("codes", "expected"),
    [
        ({0: (143, 5), 1: (-15, 6)}, 143),
        ({0: (-15, 5), 1: (129, 6)}, 129),  # which torchrun's SIGTERM overtook
        ({0: (2, 7), 1: (1, 6)}, 1),
        ({0: (-9, 5), 1: (-15, 6)}, 137),
    ],
)
def test_the_launcher_ends_with_the_code_of_the_first_that_failed(monkeypatch, codes, expected):
    failures = {rank: ProcessFailure(rank, 100 + rank, code, "<N/A>") for rank, (code, _) in codes.items()}
    for rank, (_, when) in codes.items():
        failures[rank].timestamp = when

    def failing(arguments):
        assert arguments == ["--nproc_per_node", "2"]
        raise ChildFailedError("equipoise", failures)

    monkeypatch.setattr("torch.distributed.run.main", failing)
    assert launch.main(["--nproc_per_node", "2"]) == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux lists processes there")
def test_the_launcher_hands_a_signal_to_a_process_that_handles_it():
    """The other one would die of it, as a process does that is still importing."""
    with (
        subprocess.Popen(["sleep", "30"]) as deaf,
        subprocess.Popen(
            ["bash", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.02; done"], stdout=subprocess.PIPE
        ) as hearing,
    ):
        assert hearing.stdout.readline() == b"ready\n"
        launch.hand_on(signal.SIGUSR1, None)
        assert hearing.wait(20) == 7
        assert deaf.poll() is None
        deaf.kill()


SLURM = re.search(
    r"^```text title=\"train\.sbatch\"\n(.*?)^```$", (DOCS / "slurm.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)
STAND_IN = """#!/bin/bash
trap 'sleep 0.1; exit 143' TERM
trap 'touch saved' USR1
touch started
for i in {1..500}; do test -e done && exit $(cat done); sleep 0.02; done
"""


@loop_over(
    ("signals", "end", "code", "queued"),
    [([signal.SIGUSR1, signal.SIGTERM], None, 143, True), ([], 0, 0, False), ([signal.SIGUSR1], 1, 1, False)],
)
def test_the_job_for_slurm_requeues_a_run_that_was_stopped_and_no_other(tmp_path, signals, end, code, queued):
    """With stand-ins. A signal to the script reaches the run, and the script waits for its end."""
    assert SLURM is not None
    for name, text in {"equipoise": STAND_IN, "scontrol": '#!/bin/bash\necho "$@" > queued\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.sbatch").write_text(SLURM.group(1))
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    with subprocess.Popen(["bash", "train.sbatch"], cwd=tmp_path, env=env) as job:
        wait_for(tmp_path / "started")
        for number in signals:
            job.send_signal(number)
            if number == signal.SIGUSR1:
                wait_for(tmp_path / "saved")
        if end is not None:
            (tmp_path / "ending").write_text(str(end))
            (tmp_path / "ending").rename(tmp_path / "done")
        assert job.wait(20) == code
    assert (tmp_path / "queued").exists() == queued
    assert not queued or (tmp_path / "queued").read_text() == "requeue 42\n"


def wait_for(path):
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


def test_the_launcher_ends_with_the_signal_that_it_got(monkeypatch):
    def signalled(arguments):
        raise SignalException("got signal 1", signal.SIGHUP)

    monkeypatch.setattr("torch.distributed.run.main", signalled)
    assert launch.main([]) == 129
    monkeypatch.setattr("torch.distributed.run.main", lambda arguments: None)
    assert launch.main([]) == 0


def test_an_error_is_said_though_rank_1_is_set_by_another_program(tmp_path):
    arguments = ["train", "nothing_like_it", str(tmp_path / "run")]
    ended = Victim(arguments, tmp_path / "log", before=lambda: os.environ.update(RANK="1")).end(100)
    assert ended.code == 2
    assert "there is no recipe" in ended.said
