"""Quotes source files in pages, so that code in the documentation cannot differ from the code.

A line ``<<< PATH | FIRST | LAST`` of a page becomes the lines of PATH from the first that contains FIRST to the next
that contains LAST, without their common indentation. ``<<< PATH | ONLY`` is one line.
"""

import re
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[2]
QUOTE = re.compile(r"^<<< (?P<path>.+?) \| (?P<first>.+?)(?: \| (?P<last>.+))?$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return QUOTE.sub(lambda found: quote(found["path"], found["first"], found["last"]), markdown)


def quote(path: str, first: str, last: str | None = None) -> str:
    """The lines, or PluginError, which ends the build, if the file does not hold them."""
    lines = (ROOT / path).read_text("utf-8").splitlines()
    start = find(lines, first, 0, path)
    end = start if last is None else find(lines, last, start, path)
    return textwrap.dedent("\n".join(lines[start : end + 1]))


def find(lines: list[str], text: str, start: int, path: str) -> int:
    """The index of the first line from `start` on that contains `text`."""
    for i in range(start, len(lines)):
        if text in lines[i]:
            return i
    raise PluginError(f"{path} has no line with {text!r} after line {start}")
