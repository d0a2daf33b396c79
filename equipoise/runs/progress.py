"""Progress of a run while it trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

__all__ = ["Progress", "Speed", "duration", "tell"]

SHOWN = {"D/loss": "D", "G/loss": "G", "D/real": "D(real)", "D/fake": "D(fake)"}
MEASURED = 5.0
"""Seconds of training after which the expected time is told."""


WINDOW = 600.0
"""Seconds from which the speed is measured; more if an iteration takes longer."""


class Speed:
    """Images per second of wall clock over the last minutes, and the time left.

    A mark is a moment (seconds, nimg). The first iteration counts until there is another one: it is slower than the
    others.
    """

    def __init__(self, nimg: int):
        self.marks = deque([(time.perf_counter(), nimg)])
        self.newest, self.iterations = self.marks[0], 0

    def mark(self, nimg: int) -> None:
        """Note that an iteration has ended, and the run is at `nimg`."""
        now = time.perf_counter()
        if self.iterations == 1:
            self.marks = deque([self.newest])
        self.newest, self.iterations = (now, nimg), self.iterations + 1
        if now - self.marks[-1][0] >= 1:
            self.marks.append(self.newest)
            while len(self.marks) > 2 and now - self.marks[1][0] > WINDOW:
                self.marks.popleft()

    @property
    def measured(self) -> float:
        """Seconds from which the speed is measured."""
        return self.newest[0] - self.marks[0][0]

    @property
    def per_second(self) -> float:
        """Images per second; 0 before the first iteration has ended."""
        return (self.newest[1] - self.marks[0][1]) / max(self.measured, 1e-9)

    def left(self, images: float) -> str:
        """The time that `images` take at this speed, as `duration`; "?" before it was measured."""
        return duration(images / self.per_second) if self.per_second > 0 else "?"


def duration(seconds: float) -> str:
    """Seconds as text: "0:12:05", "3 days 4:00:00"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return clock if days == 0 else f"{days} {'day' if days == 1 else 'days'} {clock}"


class Progress:
    """kimg done, the time left, images per second, losses and logits."""

    def __init__(self, total_kimg: float, start: int):
        self.console = Console(stderr=True)
        self.total, self.start = total_kimg, start
        self.bar = Bar(
            TextColumn("{task.completed:g}/{task.total:g} kimg"),
            BarColumn(bar_width=10, table_column=Column(min_width=10)),
            TextColumn("{task.fields[left]} left", table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", table_column=Column(no_wrap=False)),  # the only one that may wrap
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=total_kimg, left="?")
        self.bar.update(self.task, completed=start / 1000)
        self.speed = Speed(start)
        self.told = False
        """Whether the expected time was told."""

    def open(self) -> None:
        self.speed = Speed(self.start)
        self.bar.start()

    def move(self, nimg: int) -> None:
        """Note that the run is at `nimg`: the bar and the time left follow. The expected time is told once."""
        if nimg != self.speed.newest[1]:
            self.speed.mark(nimg)
        if self.speed.measured >= MEASURED:
            self.expect(nimg)
        self.bar.update(self.task, completed=nimg / 1000, left=self.left(nimg))

    def left(self, nimg: int) -> str:
        return self.speed.left(max(self.total * 1000 - nimg, 0))

    def expect(self, nimg: int) -> None:
        """Tell the expected time, if it was not told before."""
        if not self.told and self.speed.per_second > 0:
            self.told = True
            speed = f"{self.speed.per_second:.3g} images per second"
            tell({"time": f"{self.left(nimg)} left at {speed}, by the first iterations"}, self.console)

    def show(self, nimg: int, averages: Mapping[str, float]) -> None:
        """Show averages of a window of iterations; nothing if the window is empty but for other numbers."""
        if "images_per_second" not in averages:
            return
        self.expect(nimg)
        values = " ".join(f"{label} {averages[name]:.2f}" for name, label in SHOWN.items() if name in averages)
        values = f"{averages['images_per_second']:.0f} img/s  {values}"
        self.bar.update(self.task, completed=nimg / 1000, description=values)
        if not self.console.is_terminal:
            line = f"{nimg / 1000:g}/{self.total:g} kimg  {self.left(nimg)} left  {values}"
            self.console.print(line, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning. A terminal wraps it, a file does not."""
        line = Text.assemble(("warning: ", "bold yellow"), text)
        self.console.print(line, highlight=False, soft_wrap=not self.console.is_terminal)

    def close(self) -> None:
        self.bar.stop()


def tell(facts: Mapping[str, str], console: Console | None = None) -> None:
    """Print a line for each fact, after its label, on stderr. A terminal wraps them, a file does not."""
    console = console or Console(stderr=True)
    width = max(8, *(len(label) for label in facts))
    for label, text in facts.items():
        line = Text.assemble((f"{label:{width}}  ", "bold"), text)
        console.print(line, highlight=False, soft_wrap=not console.is_terminal)
