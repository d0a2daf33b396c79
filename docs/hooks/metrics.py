"""The tables of metrics, made from their classes, so that a metric is listed when it is there.

A line ``<!-- metrics: images -->`` of a page becomes the table of the metrics of any images,
``<!-- metrics: runs -->`` of those that ask the discriminator of a run, and ``<!-- metrics: generators -->`` of those
that ask a generator itself.
"""

import inspect
import re
from typing import Any

from equipoise.evaluate.evaluator import reads, settings
from equipoise.metrics.base import needs
from equipoise.metrics.registry import METRICS, OF_GENERATORS, OF_RUNS

MARK = re.compile(r"^<!-- metrics: (images|runs|generators) -->$", re.MULTILINE)

NAMES = {
    "images": [name for name in METRICS if name not in (*OF_RUNS, *OF_GENERATORS)],
    "runs": OF_RUNS,
    "generators": OF_GENERATORS,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return MARK.sub(lambda found: table(NAMES[found[1]]), markdown)


def table(names: list[str]) -> str:
    rows = [row(name) for name in names]
    return "\n".join(["| metric | numbers | reads | what |", "|---|---|---|---|", *rows])


def row(name: str) -> str:
    """Name with default settings, numbers, what they are computed from, and the first paragraph of the docstring."""
    kind = METRICS[name]
    metric = kind()
    fields = ",".join(f"{field}={shown(value)}" for field, value in settings(metric).items())
    numbers = ", ".join(f"`{number}`" for number in metric.directions("NETWORK")) + (" ±" if kind.spread else "")
    what = " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())
    return f"| `{name}{f'({fields})' if fields else ''}` | {numbers} | {reads(needs(metric))} | {what} |"


def shown(value: object) -> str:
    """A setting as `--metrics` takes it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(shown, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
