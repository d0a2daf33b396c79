"""The command that installs an optional part of the package. Every message about a missing package quotes it."""

from __future__ import annotations

__all__ = ["install"]


def install(*extras: str) -> str:
    """The command for extras, typed in a clone of the repository: the package is not in an index yet.

    >>> install("lab")
    "pip install -c constraints.txt '.[lab]'"
    """
    return f"pip install -c constraints.txt '.[{','.join(extras)}]'"
