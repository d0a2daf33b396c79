"""Progress of an experiment on a terminal. Experiments report to a listener, if there is one."""

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
    """Report the current activity, and the finished fraction of the experiment, from 0 to 1."""
    hear = listener.get()
    if hear is not None:
        hear(doing, done)


@contextmanager
def shown(console: Console, name: str) -> Iterator[None]:
    """A live line for the experiment `name`: a spinner, and a bar with the time left once the experiment reports.

    Without a terminal, a plain line whenever the activity changes.
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
