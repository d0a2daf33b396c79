"""Work on many items divided among processes, which then all get every result. A single process does all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, zip_longest
from typing import TypeVar

import torch.distributed as dist

from equipoise.core.types import RunError

from .distributed import from_rank_0, rank, world_size

__all__ = ["rank_0_first", "share", "together"]

T = TypeVar("T")


def share(items: Iterable[T]) -> Iterator[T]:
    """The items of this process: with P processes, rank r gets items r, r + P, r + 2P and so on."""
    return islice(items, rank(), None, world_size())


def together(work: Callable[[], Iterable[T]]) -> list[T]:
    """Collect the results of all processes in the order of the items. `work` gives one for each item of its `share`.

    A ValueError or RunError on one process is raised on all, so none waits for a failed one. Results may not be None.
    """
    if world_size() == 1:
        return list(work())
    mine: list[T] = []
    failure: ValueError | RunError | None = None
    try:
        mine = list(work())
    except (ValueError, RunError) as raised:
        failure = raised
    gathered: list[tuple[list[T], ValueError | RunError | None]] = [(mine, None)] * world_size()
    dist.all_gather_object(gathered, (mine, failure))
    for _, error in gathered:
        if error is not None:
            raise error
    return [item for turn in zip_longest(*(items for items, _ in gathered)) for item in turn if item is not None]


def rank_0_first(function: Callable[[], T]) -> T:
    """Call `function` on every process, first on rank 0: the others find the files that rank 0 downloads.

    A ValueError or RunError on rank 0 is raised on all.
    """
    made: list[T] = []
    from_rank_0(lambda: made.append(function()))
    return made[0] if made else function()
