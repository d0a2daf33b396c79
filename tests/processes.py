"""Two processes on one machine, as `torchrun` would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks.victims import Victim

__all__ = ["command_on_two_processes", "free_port", "on_two_processes"]


def on_two_processes(work: Callable[[int], Any], path: Path) -> list[Any]:
    """What `work(rank)` returned on rank 0 and on rank 1, which talk over gloo; an error if one ends without.

    Forked, which takes no time. Judged by the files that they write: gloo may abort at exit, after the work is done.

    path: of files that no one else uses, without an ending.
    """
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=carry_out, args=(work, path, rank)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()  # one that waits for the other for ever
    return [torch.load(f"{path}.rank{rank}", weights_only=True) for rank in (0, 1)]


def carry_out(work: Callable[[int], Any], path: Path, rank: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}.store", rank=rank, world_size=2)
    torch.save(work(rank), f"{path}.rank{rank}")
    torch.distributed.barrier()  # the first to end would take the other's connection away


def command_on_two_processes(arguments: Sequence[str], logs: Path) -> str:
    """What `equipoise ARGUMENTS` said on both. No exit code is judged: gloo may abort at exit, after the work is done.

    Forked, in the environment that `torchrun` gives to its processes. logs: a folder of what they said.
    """
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}

    def process(rank: int) -> Victim:
        env = meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        return Victim(arguments, logs / f"said.{rank}.log", before=lambda: os.environ.update(env))

    return "".join(process.end(100).said for process in [process(0), process(1)])


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return int(listening.getsockname()[1])
