"""Two processes on one machine, as `torchrun` would start them."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["free_port", "on_two_processes"]


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


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return int(listening.getsockname()[1])
