"""`torchrun` with restarts on two nodes, which are here two process groups on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import free_port
from runs import newest, same, saved
from torch.testing import assert_close
from worker import cfg

from equipoise.compute.distributed import fresh
from equipoise.core.types import RunError
from equipoise.train import train

WORKER = Path(__file__).parent / "worker.py"


def torchrun(*options: str, run_dir: Path, notes: Path, death: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    notes.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(WORKER), str(run_dir), str(notes)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *map(str, death)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def output(run: subprocess.Popen[str]) -> str:
    """What it said until it ended; it does end, with its processes."""
    try:
        return run.communicate(timeout=150)[0]
    finally:
        run.terminate()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The run in one process."""
    run_dir = tmp_path_factory.mktemp("one")
    train(cfg(), run_dir)
    return run_dir


def assert_ends_alike(undisturbed, run_dir, notes, said):
    """Two processes, judged by what they wrote: gloo may abort when they exit, after the work is done."""
    assert newest(run_dir).name == newest(undisturbed).name, said
    a, b = (torch.load(notes / f"weights.{rank}", weights_only=True) for rank in (0, 1))
    for name in ("G", "D"):
        assert same(a[name], b[name]), name
        assert same(a[name], saved(run_dir, name)), name
    for name in ("G", "D", "ema"):
        assert_close(saved(run_dir, name), saved(undisturbed, name), rtol=0, atol=1e-5)


def two_nodes(*options: str, places: list[Path], notes: Path, death: tuple[int, ...] = ()) -> str:
    """What two nodes said, each of one process with the run directory that is its own of `places`."""
    meet = ("--rdzv_backend", "c10d", "--rdzv_id", notes.parent.name, "--rdzv_endpoint", f"localhost:{free_port()}")
    options = ("--nnodes", "2", "--nproc_per_node", "1", *meet, *options)
    nodes = [torchrun(*options, run_dir=place, notes=notes, death=death) for place in places]
    try:
        return "\n".join([output(node) for node in nodes])
    finally:
        for node in nodes:
            node.terminate()


def test_kill_9_on_two_nodes_costs_at_most_a_checkpoint_interval_and_only_the_first_needs_the_disk(
    undisturbed, tmp_path
):
    """Of rank 0, which writes, and of rank 1 in the life after that. Checkpoints are 80 apart: nothing else is lost.

    Nodes keep their ranks when processes start anew, so the disk is where it was.
    """
    notes, places = tmp_path / "notes", [tmp_path / "first", tmp_path / "second"]
    said = two_nodes("--max-restarts", "2", places=places, notes=notes, death=(0, 136, 1, 200))
    (run_dir,) = (place for place in places if place.exists())
    resumed = {path.name: int(path.read_text()) for path in notes.glob("resumed.*")}
    assert resumed == {f"resumed.{life}.{rank}": 80 * life for life in range(3) for rank in (0, 1)}, said
    assert_ends_alike(undisturbed, run_dir, notes, said)


@pytest.fixture
def torchruns_store():
    """A connection for each process to a store that outlives them."""
    server = dist.TCPStore("localhost", 0, is_master=True)
    return lambda: dist.TCPStore("localhost", server.port)


@pytest.mark.parametrize("alone", [0, 1])
def test_a_process_does_not_wait_for_ever_for_one_that_is_dead(torchruns_store, alone):
    for rank in (1 - alone, alone):  # the second finds what the first has written
        with pytest.raises(RunError, match=r"the 2 processes of this run did not meet within 0:00:00\.2"):
            fresh(torchruns_store(), rank, 2, timedelta(seconds=0.2))


@pytest.mark.parametrize("late", [0, 1])
def test_processes_read_nothing_that_dead_ones_wrote(torchruns_store, late):
    """Four lives. In the second nobody comes but the rank that is `late` in the others."""

    def addresses(rank: int, life: str) -> list[bytes]:
        time.sleep(0.2 * (rank == late))
        store = fresh(torchruns_store(), rank, 2, timedelta(seconds=30))
        store.set(f"address {rank}", life)
        return [store.get(f"address {r}") for r in (0, 1)]

    with ThreadPoolExecutor(2) as processes:
        for life in ("first", "second", "third", "fourth"):
            if life == "second":
                with pytest.raises(RunError):
                    fresh(torchruns_store(), late, 2, timedelta(seconds=0.2))
            else:
                both = processes.map(addresses, (0, 1), (life, life))
                assert list(both) == [[life.encode()] * 2] * 2
