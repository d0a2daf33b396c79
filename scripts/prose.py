"""Count habits that make prose hard to read, in docstrings, comments, messages and pages.

    python scripts/prose.py            counts, and each line of the first kind
    python scripts/prose.py --all      every line

First words: a docstring begins with a noun or an imperative, never with What, That, Those, Of, As or By. None may stay.
Turns of phrase that name a thing by its absence or by a pronoun: "is no", "has no", "of no", "so many", "as many",
"that of", "those of". Messages may say what is missing: "R1 has no field 'gama'". Otherwise fewer than LIMIT may
stay. Exit status 1: there are more.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
CODE = ("equipoise", "scripts", "benchmarks", "examples", "docs/hooks")
PAGES = ("docs/*.md", "README.md", "CONTRIBUTING.md")
ITSELF = Path(__file__).resolve()

FIRST = re.compile(r"(?:What|That|Those|Of|As|By)\b")
TURNS = re.compile(r"\b(?:(?:(?<!there )is|has|of) no|(?:so|as) many|(?:that|those) of)\b", re.IGNORECASE)
ABSENCE = re.compile(r"(?:is|has) no", re.IGNORECASE)
"""The plain way for a message to say what is missing."""
LIMIT = 15
MESSAGE = 30
"""Characters from which on a string is taken for a message."""
STRINGS = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


class Habit(NamedTuple):
    place: str
    kind: str
    text: str


def documentation(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings that stand alone, with their lines: docstrings, and those below a constant or a field."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def in_code(path: Path) -> Iterator[Habit]:
    text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
    for line, docstring in documentation(ast.parse(text)):
        if FIRST.match(docstring):
            yield Habit(f"{name}:{line}", "first word", docstring.splitlines()[0])
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type in STRINGS and len(token.string) > MESSAGE):
            is_message = token.type in STRINGS and '"""' not in token.string
            found = turns(token.string, str(name), token.start[0])
            yield from (habit for habit in found if not (is_message and ABSENCE.match(habit.kind)))


def in_page(path: Path) -> Iterator[Habit]:
    return turns(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)), 1)


def turns(text: str, name: str, line: int) -> Iterator[Habit]:
    for found in TURNS.finditer(text):
        where = line + text.count("\n", 0, found.start())
        words = text[max(found.start() - 40, 0) : found.end() + 40]
        yield Habit(f"{name}:{where}", found.group().lower(), " ".join(words.split()))


def habits() -> list[Habit]:
    code = (path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")) if path != ITSELF)
    pages = (path for pattern in PAGES for path in sorted(ROOT.glob(pattern)))
    return [habit for path in code for habit in in_code(path)] + [habit for path in pages for habit in in_page(path)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="list every line")
    asked = parser.parse_args(arguments)
    found = habits()
    counts = Counter(habit.kind for habit in found)
    for habit in found:
        if asked.all or habit.kind == "first word":
            print(f"{habit.place}: {habit.kind}: {habit.text}")
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())) or "none")
    first = counts.pop("first word", 0)
    return int(first > 0 or counts.total() >= LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
