"""The lines of a run's stats.jsonl: intact ones with their values, and damaged ones."""

from __future__ import annotations

import sys
from typing import NamedTuple

from equipoise.core.files import read_json

__all__ = ["LARGEST", "Log", "read_log"]

LARGEST = 1 << 30
"""Largest log that is read, in bytes: millions of lines."""


class Log(NamedTuple):
    """A log, split. intact: text and values of each intact line, oldest first.  damaged: other lines by line number."""

    intact: list[tuple[bytes, dict[str, float]]]
    damaged: dict[int, bytes]

    def described(self) -> str:
        """The damaged lines as the subject of a sentence: "2 damaged lines (3, 7)"."""
        numbers = [*self.damaged]
        shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
        return f"{len(numbers)} damaged line{'s' if len(numbers) > 1 else ''} ({shown})"


def read_log(content: bytes) -> Log:
    """Split the content of a stats.jsonl into lines.

    A line is intact if it is a JSON object of finite numbers, with an integer `nimg` >= 0 and a `kimg`.
    """
    log = Log([], {})
    lines = content.split(b"\n")
    if not lines[-1]:  # the empty text after the last newline
        lines.pop()
    for i, line in enumerate(lines, 1):
        values = values_of(line)
        if values is None:
            log.damaged[i] = line
        else:
            log.intact.append((line, values))
    return log


def values_of(line: bytes) -> dict[str, float] | None:
    """The values of an intact line; None for a damaged line."""
    try:
        values: dict[str, float] = read_json(line, "the line")
    except ValueError:
        return None
    numbers = all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in values.values())
    nimg = values.get("nimg", -1)
    return values if numbers and isinstance(nimg, int) and nimg >= 0 and "kimg" in values else None
