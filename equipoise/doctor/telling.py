"""Findings as text: a table of 80 columns, and lines for a run that trains."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from .diagnosis import Course, Turn, command
from .symptoms import Finding

__all__ = ["line", "table"]

WIDTH = 80
LABEL = 10
SHOWN = 3
"""Most causes and changes of a symptom that are told."""


def line(turn: Turn, kimg: float) -> str:
    """A symptom that begins or ends, in one line."""
    if turn.finding is None:
        return f"{turn.symptom.title} has ended at {kimg:g} kimg"
    tries = " or ".join(change.pasted for change in turn.finding.changes[:2])
    return f"{turn.symptom.title} from {kimg:g} kimg: {turn.finding.evidence}" + (f". Try {tries}" if tries else "")


def table(
    findings: Sequence[Finding], run: str | None = None, past: Iterable[Course] = (), recipe: str | None = None
) -> str:
    """A block for each finding: evidence, causes, changes, and the command. At most 80 columns, but for commands.

    A command is cut at spaces, with a backslash at the end of each line, so that a shell takes it as it is.

    run: folder of the run, for the command; None leaves it out.
    past: symptoms that were noted while the run trained.
    """
    blocks = [block(finding, run, recipe) for finding in findings]
    over = [f"{c.symptom.title}: from {c.begun:g} to {c.ended:g} kimg" for c in past if c.ended is not None]
    if over:
        blocks.append("\n".join(["Symptoms that have ended", *(row("", text) for text in over)]))
    return "\n\n".join(blocks)


def block(finding: Finding, run: str | None, recipe: str | None = None) -> str:
    symptom = finding.symptom
    head = f"{symptom.name}: {symptom.title} ({symptom.severity})"
    rows = [head, row("evidence", finding.evidence), row("causes", "; ".join(finding.causes[:SHOWN]))]
    for i, change in enumerate(finding.changes[:SHOWN]):
        rows.append(row("" if i else "try", f"{change.pasted}  ({change.why})"))
    text = "" if run is None else command(finding, run, recipe=recipe)
    if text:
        rows.append(pasteable(text))
    return "\n".join(rows)


def row(label: str, text: str) -> str:
    """A label, and text that is wrapped beside it. Words are never cut, so that overrides can be pasted."""
    wrapped = textwrap.wrap(text, WIDTH - LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"  {label if i == 0 else '':{LABEL}}{part}" for i, part in enumerate(wrapped))


def pasteable(text: str) -> str:
    """A command over several lines, each but the last with a backslash."""
    lines, now = [], "  command   "
    for i, word in enumerate(text.split(" ")):
        if i and len(now) + len(word) + 3 > WIDTH:
            lines.append(f"{now}\\")
            now = " " * (LABEL + 2)
        now += f"{word} "
    return "\n".join([*lines, now.rstrip()])
