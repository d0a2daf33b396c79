"""Covering arrays: few cases in which every pair of values of two axes, or every triple, occurs at least once.

Most faults of a program with many settings need one of them, or two that meet (Kuhn, Wallace & Gallo 2004). All pairs
need as many cases as the two largest axes have pairs, and more axes hardly need more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import combinations, product

__all__ = ["covering_array", "pairs_in", "pairs_of"]

Axes = Mapping[str, Sequence[Hashable]]
Case = dict[str, Hashable]
Value = tuple[str, Hashable]
"""An axis, and a value of it."""
Group = tuple[Value, ...]
"""Values of a few axes, in the order of the axes."""


def pairs_of(axes: Axes, strength: int = 2) -> Iterator[Group]:
    """Every group of values of `strength` axes, ((axis, value), (another axis, value), ...)."""
    for some in combinations(axes.items(), strength):
        yield from product(*([(axis, value) for value in values] for axis, values in some))


def pairs_in(case: Mapping[str, Hashable], axes: Axes, strength: int = 2) -> set[Group]:
    """The groups that a case, one value per axis, holds."""
    return set(combinations([(axis, case[axis]) for axis in axes], strength))


def covering_array(axes: Axes, allowed: Callable[[Case], bool], strength: int = 2) -> list[Case]:
    """Cases, one value per axis, that hold every group of values which `allowed` accepts, and none that it refuses.

    allowed: judges a case of some of the axes; what it refuses, it must refuse with more axes too.
    strength: axes in a group. 2: pairs.

    Greedy, and the same each time: a case starts from the first group that is still missing, and takes, axis by axis,
    the value that adds most of the groups still missing; of several, the one used least.

    Raises:
        ValueError: if a group that `allowed` accepts alone fits into no whole case.
    """
    missing = dict.fromkeys(group for group in pairs_of(axes, strength) if allowed(dict(group)))  # a set with an order
    used: Counter[Value] = Counter()
    place = {axis: i for i, axis in enumerate(axes)}

    def worth(case: Case, new: Value) -> tuple[int, int]:
        groups = (sorted((*held, new), key=lambda v: place[v[0]]) for held in combinations(case.items(), strength - 1))
        return sum(tuple(group) in missing for group in groups), -used[new]

    def whole(case: Case, rest: Sequence[str]) -> Case | None:
        if not rest:
            return case
        axis, *others = rest
        for value in sorted(axes[axis], key=lambda value: worth(case, (axis, value)), reverse=True):
            grown = case | {axis: value}
            found = whole(grown, others) if allowed(grown) else None
            if found is not None:
                return found
        return None

    cases = []
    by_size = sorted(axes, key=lambda axis: -len(axes[axis]))
    while missing:
        start = next(iter(missing))
        case = whole(dict(start), [axis for axis in by_size if axis not in dict(start)])
        if case is None:
            raise ValueError(f"{start} is allowed, and every whole case with it is refused")
        for held in pairs_in(case, axes, strength):
            missing.pop(held, None)
        used.update(case.items())
        cases.append({axis: case[axis] for axis in axes})
    return cases
