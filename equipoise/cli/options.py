"""Shared by all commands: options, parsers of their values, error messages without a traceback."""

from __future__ import annotations

import shlex
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar

import typer
from rich.console import Console

__all__ = [
    "OwnFeatures",
    "OwnRecipe",
    "Weights",
    "assignments",
    "clear_errors",
    "err",
    "numbers",
    "one_of",
    "out",
    "own_components",
    "pasted",
    "raised_here",
    "ranges",
    "say",
]

Word = TypeVar("Word", bound=str)

OwnRecipe = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--recipe", help="FILE.py:FUNCTION, if the run was trained from a file of your own."),
]


OwnFeatures = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The feature network, as in `equipoise evaluate`; default: digits for digits, else inception."),
]


Weights = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="File with the feature network's weights, if they are not in the cache."),
]


out = Console(soft_wrap=True, highlight=False)


err = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turn errors that the user can mend into one message without a traceback, and exit. Remarks get a line each."""
    from equipoise.compute.interrupt import Interrupted

    try:
        with remarks():
            yield
    except Interrupted as stop:
        say(str(stop))
        raise typer.Exit(128 + stop.signal) from None
    except Exception as error:
        from equipoise.core.types import RunError
        from equipoise.train.memory import out_of_memory

        if isinstance(error, ValueError | RunError) and raised_here(error):
            message = str(error)
        elif out_of_memory(error):
            message = "out of memory: ask for less at a time, such as fewer images or a smaller batch"
        elif isinstance(error, OSError):
            message = str(error)
        else:
            raise  # a bug in somebody's network or recipe: the traceback says more than one line
        say(message, error=True)
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from None


@contextmanager
def remarks() -> Iterator[None]:
    """Print this package's own warnings without the place in the code that gave them."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if category.__module__.startswith("equipoise."):
            err.print("[bold yellow]warning:[/] ", end="")
            err.print(str(message), markup=False)
        else:
            before(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def say(message: str, *, error: bool = False) -> None:
    """Print `message` on stderr; of several processes, the first prints."""
    from equipoise.compute.distributed import speaks

    if speaks():
        if error:
            err.print("[bold red]error:[/] ", end="")
        err.print(message, markup=False)


def pasted(path: Path) -> str:
    """`path` quoted for a shell. A leading dash gets ./ before it, so that the path is not read as an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def raised_here(error: BaseException) -> bool:
    """Whether this package raised it, and so wrote its message for the user."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(__file__).parents[1])


def assignments(items: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Parsed values of ``key=value`` arguments, by key. Raises ValueError for an argument without "="."""
    from equipoise.core.grammar import parse
    from equipoise.core.nesting import shown

    changes = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"{shown(item)} is not an override: give KEY=VALUE, such as loss=Hinge or d_optim.lr=4e-4")
        changes[key] = parse(text, known)
    return changes


def numbers(text: str, option: str, what: str, count: int | None = None, separator: str = ",") -> list[int]:
    """Parse the integers >= 0 that `option` lists. Raises ValueError for other text, or unless there are `count`."""
    parts = text.split(separator)
    if not all(part.strip().isdecimal() for part in parts) or count not in (None, len(parts)):
        example = separator.join(map(str, range(count or 3)))
        between = "commas" if separator == "," else separator
        raise ValueError(f"{option} takes {what} separated by {between}, such as {example}; got {text!r}")
    return [int(part) for part in parts]


def ranges(text: str, option: str, what: str) -> list[int]:
    """Parse integers and ranges, "7,0-3" -> [7, 0, 1, 2, 3]. Raises ValueError for other text."""
    values: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last) < 10_000)):
            raise ValueError(f"{option} takes {what} and ranges of them, such as 0-3,7; got {text!r}")
        values.extend(range(int(first), int(last if dash else first) + 1))
    return values


def one_of(text: str, option: str, *words: Word) -> Word:
    """`text`, if it is one of `words`. Raises ValueError for other text."""
    for word in words:
        if word == text:
            return word
    raise ValueError(f"{option} takes {', '.join(words[:-1])} or {words[-1]}, got {text!r}")


def own_components(recipe: str | None) -> Mapping[str, Any] | None:
    """Components from the user's recipe file, which configs may call; None without a file."""
    from equipoise import recipes as library

    return library.load(recipe)[1] if recipe else None
