"""Independent computations in several processes. The results do not depend on the number of processes."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from equipoise.core.types import RunError

__all__ = ["one_thread", "spread"]

J = TypeVar("J")
R = TypeVar("R")


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread in the block: sums run in one order on every machine. Small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spread(task: Callable[[J], Iterator[R]], jobs: Sequence[J], workers: int) -> Iterator[tuple[int, R]]:
    """Yield (number of the job, value) for each value that `task` yields for one of `jobs`, as soon as it comes.

    The values of one job come in order.

    task, jobs: pickled, so `task` must be a function of a module. It is called on one thread.
    workers: number of processes; 1 starts none. They end with this process, and with the iterator.

    Raises:
        RunError: if a process dies.
        Exception: what `task` raises.
    """
    if workers == 1:
        for number, job in enumerate(jobs):
            with one_thread():
                for value in task(job):
                    yield number, value
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that has threads may hang
    todo = iter(enumerate(jobs))
    processes, busy = [], dict[Connection, int]()
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, task), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends when the process ends
            processes.append(process)
            give(ours, todo, busy)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                number = busy[pipe]
                try:
                    kind, content = pickle.loads(pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    raise RunError(
                        f"a process died at job {number + 1} of {len(jobs)}: there may be too little memory (workers=1 "
                        "starts none). A script of your own must begin with `if __name__ == '__main__':`."
                    ) from None
                if kind == "found":
                    yield number, content
                elif kind == "raised":
                    raise content
                else:
                    give(pipe, todo, busy)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def give(pipe: Connection, todo: Iterator[tuple[int, Any]], busy: dict[Connection, int]) -> None:
    """Send the next job, if there is one."""
    busy.pop(pipe, None)
    number, job = next(todo, (None, None))
    if number is not None:
        pipe.send_bytes(pickle.dumps(job))
        busy[pipe] = number


def work(pipe: Connection, task: Callable[[Any], Iterator[Any]]) -> None:
    """One worker process: receive jobs and send their values until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this process
    torch.set_num_threads(1)
    while True:
        try:
            job = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            for value in task(job):
                pipe.send_bytes(pickle.dumps(("found", value)))  # by value: torch would share memory
            pipe.send_bytes(pickle.dumps(("done", None)))
        except BrokenPipeError:
            return
        except Exception as error:
            pipe.send_bytes(pickle.dumps(("raised", error)))
