"""Differences between the weights in a file and a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

__all__ = ["first_of", "misfits"]


def first_of(phrases: Sequence[str], shown: int = 3) -> str:
    """The first phrases, cut to 200 characters each, and the number of the rest."""
    rest = f" and {len(phrases) - shown} more" if len(phrases) > shown else ""
    return "; ".join(phrase[:200] for phrase in phrases[:shown]) + rest


def misfits(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Differences in names and shapes between two networks' weights, one phrase each."""

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
