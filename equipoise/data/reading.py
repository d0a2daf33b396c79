"""Read ahead in background threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["read_ahead"]

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(read: Callable[[T], R], items: Iterable[T], *, threads: int = 4) -> Generator[R]:
    """map(read, items), with the next `threads` results computed ahead in threads; 0 computes in place.

    An error of `read` is raised here, at its place in the order. `close()`, an exception or the end of `items` stops
    the threads.
    """
    if threads == 0:
        yield from map(read, items)
        return
    items = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="equipoise-read")
    try:
        pending = deque(pool.submit(read, item) for item in islice(items, threads))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(read, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
