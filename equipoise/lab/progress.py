"""How far an experiment is, on a terminal. Experiments say it to whoever listens, which may be nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

__all__ = ["say", "shown"]

Listener = Callable[[str, float], None]

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def say(doing: str, done: float) -> None:
    """What is being done, and which fraction of the experiment is behind, from 0 to 1."""
    hear = listener.get()
    if hear is not None:
        hear(doing, done)


@contextmanager
def shown(console: Console, name: str) -> Iterator[None]:
    """A live line for the experiment `name`: a spinner, and a bar with the time left once it says how far it is.

    Where there is no terminal, a plain line whenever it does something else.
    """
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task(f"{name} ...", total=None)
    last = ""

    def hear(doing: str, done: float) -> None:
        nonlocal last
        bar.update(task, description=f"{name}: {doing}", total=1, completed=done)
        if doing != last and not console.is_terminal:
            console.print(f"{name}: {doing}", markup=False)
        last = doing

    token = listener.set(hear)
    try:
        with bar:
            yield
    finally:
        listener.reset(token)
