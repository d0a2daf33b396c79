"""Independent computations in several processes. What they find does not depend on how many there are."""

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
    """Sums in one order on every machine; and small networks are no faster on more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spread(task: Callable[[J], Iterator[R]], jobs: Sequence[J], workers: int) -> Iterator[tuple[int, R]]:
    """What `task` yields for each of `jobs`, as it comes, with the number of the job; in order for each job.

    task, jobs: to be pickled, so `task` is a function of a module. It is called on one thread.
    workers: processes; 1 starts none. They end with this one, and with the iterator.

    Raises:
        RunError: if a process dies.
        Exception: what `task` raises.
    """
    if workers == 1:
        for number, job in enumerate(jobs):
            with one_thread():
                for found in task(job):
                    yield number, found
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that has threads may hang
    todo = iter(enumerate(jobs))
    processes, busy = [], dict[Connection, int]()
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, task), daemon=True)
            process.start()
            theirs.close()  # so that an end of the process is an end of the pipe
            processes.append(process)
            give(ours, todo, busy)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                number = busy[pipe]
                try:
                    kind, found = pickle.loads(pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    raise RunError(
                        f"a process died at job {number + 1} of {len(jobs)}: there may be too little memory (workers=1 "
                        "starts none). A script of your own must begin with `if __name__ == '__main__':`."
                    ) from None
                if kind == "found":
                    yield number, found
                elif kind == "raised":
                    raise found
                else:
                    give(pipe, todo, busy)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def give(pipe: Connection, todo: Iterator[tuple[int, Any]], busy: dict[Connection, int]) -> None:
    """The next job, if there is one."""
    busy.pop(pipe, None)
    number, job = next(todo, (None, None))
    if number is not None:
        pipe.send_bytes(pickle.dumps(job))
        busy[pipe] = number


def work(pipe: Connection, task: Callable[[Any], Iterator[Any]]) -> None:
    """One process: jobs come, what is found goes, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this one
    torch.set_num_threads(1)
    while True:
        try:
            job = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            for found in task(job):
                pipe.send_bytes(pickle.dumps(("found", found)))  # by value: torch would share memory
            pipe.send_bytes(pickle.dumps(("done", None)))
        except BrokenPipeError:
            return
        except Exception as error:
            pipe.send_bytes(pickle.dumps(("raised", error)))
