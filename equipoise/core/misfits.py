"""Whether the weights in a file are those of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

__all__ = ["first_of", "misfits"]


def first_of(phrases: Sequence[str], shown: int = 3) -> str:
    """The first phrases, none longer than 200 characters, and how many more there are."""
    more = f" and {len(phrases) - shown} more" if len(phrases) > shown else ""
    return "; ".join(phrase[:200] for phrase in phrases[:shown]) + more


def misfits(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """How one network's weights differ from another's in names and shapes, a phrase each."""

    def phrases() -> Iterator[str]:
        for name, tensor in expected.items():
            if name not in given:
                yield f"it has no {name}"
            elif given[name].shape != tensor.shape:
                yield f"{name} is {tuple(given[name].shape)} and not {tuple(tensor.shape)}"
        for name in given:
            if name not in expected:
                yield f"it has {name}, too"

    return list(phrases())
