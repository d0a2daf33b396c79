"""Work on many batches shared out over processes, each of which then has all that was found. One does all of it."""

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
    """Those of this process: of P processes rank r has the items r, r + P, r + 2P and so on."""
    return islice(items, rank(), None, world_size())


def together(work: Callable[[], Iterable[T]]) -> list[T]:
    """What the processes found for their `share` of some items, one thing for each, in the order of the items.

    What one of them raises is raised on all, so none waits for one that has failed. No item may be None.
    """
    if world_size() == 1:
        return list(work())
    mine: list[T] = []
    failure: ValueError | RunError | None = None
    try:
        mine = list(work())
    except (ValueError, RunError) as raised:
        failure = raised
    found: list[tuple[list[T], ValueError | RunError | None]] = [(mine, None)] * world_size()
    dist.all_gather_object(found, (mine, failure))
    for _, error in found:
        if error is not None:
            raise error
    return [item for turn in zip_longest(*(items for items, _ in found)) for item in turn if item is not None]


def rank_0_first(function: Callable[[], T]) -> T:
    """What `function` returns, called by each process, but first by rank 0: what that downloads, the others find.

    What it raises on rank 0 is raised on all.
    """
    made: list[T] = []
    from_rank_0(lambda: made.append(function()))
    return made[0] if made else function()
