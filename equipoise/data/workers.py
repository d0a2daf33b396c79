"""Work divided among processes, which end with it. The server that forks them stays for the next call."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from equipoise.core.types import RunError

__all__ = ["share_out"]

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


def share_out(work: Callable[[S, T], R], shared: S, items: Sequence[T], workers: int) -> Generator[R]:
    """Yield work(shared, item) for every item, in order of completion, from `workers` processes.

    Each process gets a copy of `shared`. A ValueError or OSError of `work` is raised here. An error, `close()` or
    Ctrl-C ends all processes at once; they themselves ignore Ctrl-C. They are forked from a clean process that has
    imported the module of `work`; on Windows they are started anew. A script that calls this needs the usual
    `if __name__ == "__main__":`.

    Raises:
        RunError: if a process ends before its work is done.
    """
    there = "forkserver" in multiprocessing.get_all_start_methods()  # Windows has spawn alone
    context = multiprocessing.get_context("forkserver") if there else multiprocessing.get_context("spawn")
    context.set_forkserver_preload([work.__module__])
    processes: dict[Connection, BaseProcess] = {}
    try:
        for k in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=run, args=(work, shared, items[k::workers], sender), daemon=True)
            process.start()
            processes[receiver] = process
            sender.close()  # so that the end of the process closes the pipe
        running = dict(processes)
        while running:
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                try:
                    result = ready.recv()
                except EOFError:
                    ended = running.pop(ready)
                    ended.join()
                    if ended.exitcode:
                        memory = "perhaps for want of memory: use fewer workers"
                        raise RunError(
                            f"one of {workers} processes ended with exit code {ended.exitcode} before its work was "
                            f"done, {memory if ended.exitcode == -9 else 'for the reason that it printed above'}"
                        ) from None
                else:
                    if isinstance(result, Exception):
                        raise result
                    yield result
    finally:
        for receiver, started in processes.items():
            started.kill()
            started.join()
            receiver.close()


def run(work: Callable[[S, T], R], shared: S, items: Sequence[T], sender: Connection) -> None:
    """Body of a worker process. It also ends when nobody reads its results any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends SIGINT to all processes; the caller ends this one
    with suppress(BrokenPipeError):
        try:
            for item in items:
                sender.send(work(shared, item))
        except (ValueError, OSError) as error:
            sender.send(error)
