"""`torchrun` as people run it: on two nodes, here two process groups on loopback, and with restarts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import newest, same, saved
from torch.testing import assert_close
from worker import cfg

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


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return int(listening.getsockname()[1])


def test_two_nodes_train_as_one_process_and_only_the_first_needs_the_disk(undisturbed, tmp_path):
    meet = ("--rdzv_backend", "c10d", "--rdzv_id", tmp_path.name, "--rdzv_endpoint", f"localhost:{free_port()}")
    options = ("--nnodes", "2", "--nproc_per_node", "1", *meet)
    places = [tmp_path / "first", tmp_path / "second"]
    nodes = [
        torchrun(*options, "--node_rank", str(i), run_dir=place, notes=tmp_path / "notes")
        for i, place in enumerate(places)
    ]
    said = [output(node) for node in nodes]
    (run_dir,) = (place for place in places if place.exists())
    assert_ends_alike(undisturbed, run_dir, tmp_path / "notes", "\n".join(said))


def test_kill_9_of_one_rank_costs_at_most_a_checkpoint_interval(undisturbed, tmp_path):
    """Rank 0, which writes, after 136 images. Checkpoints are 80 apart: it goes on from 80, as if nothing had been."""
    notes, run_dir = tmp_path / "notes", tmp_path / "run"
    options = ("--standalone", "--nproc_per_node", "2", "--max-restarts", "1")
    run = torchrun(*options, run_dir=run_dir, notes=notes, death=(0, 136))
    said = output(run)
    resumed = {path.name: int(path.read_text()) for path in notes.glob("resumed.*")}
    assert resumed == {"resumed.0.0": 0, "resumed.0.1": 0, "resumed.1.0": 80, "resumed.1.1": 80}, said
    assert_ends_alike(undisturbed, run_dir, notes, said)
