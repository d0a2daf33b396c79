"""Covering arrays: few cases in which every pair of values of two axes occurs at least once.

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
Pair = tuple[tuple[str, Hashable], tuple[str, Hashable]]


def pairs_of(axes: Axes) -> Iterator[Pair]:
    """Every pair of values of two axes, ((axis, value), (another axis, value)), in the order of `axes`."""
    for (a, first), (b, second) in combinations(axes.items(), 2):
        yield from (((a, u), (b, v)) for u, v in product(first, second))


def pairs_in(case: Mapping[str, Hashable], axes: Axes) -> set[Pair]:
    """Those of them that a case, one value per axis, holds."""
    return set(combinations([(axis, case[axis]) for axis in axes], 2))


def covering_array(axes: Axes, allowed: Callable[[Case], bool]) -> list[Case]:
    """Cases, one value per axis, that hold every pair of values which `allowed` accepts, and none that it refuses.

    allowed: judges a case of some of the axes; what it refuses, it must refuse with more axes too.

    Greedy, and the same each time: a case starts from the first pair that is still missing, and takes, axis by axis,
    the value that adds most of the pairs still missing; of several, the one used least.

    Raises:
        ValueError: if a pair that `allowed` accepts alone fits into no whole case.
    """
    missing = dict.fromkeys(pair for pair in pairs_of(axes) if allowed(dict(pair)))  # a set that keeps its order
    used: Counter[tuple[str, Hashable]] = Counter()
    place = {axis: i for i, axis in enumerate(axes)}

    def pair(a: tuple[str, Hashable], b: tuple[str, Hashable]) -> Pair:
        return (a, b) if place[a[0]] < place[b[0]] else (b, a)

    def worth(case: Case, new: tuple[str, Hashable]) -> tuple[int, int]:
        return sum(pair(held, new) in missing for held in case.items()), -used[new]

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
        for held in pairs_in(case, axes):
            missing.pop(held, None)
        used.update(case.items())
        cases.append({axis: case[axis] for axis in axes})
    return cases
