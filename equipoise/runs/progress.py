"""Progress of a run while it trains: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column

__all__ = ["Progress"]

SHOWN = {"D/loss": "D", "G/loss": "G", "D/real": "D(real)", "D/fake": "D(fake)"}


class Progress:
    """kimg done, images per second, losses, logits and the time left."""

    def __init__(self, total_kimg: float, start: int):
        self.console = Console(stderr=True)
        self.total = total_kimg
        self.bar = Bar(
            TextColumn("{task.completed:g}/{task.total:g} kimg"),
            BarColumn(bar_width=10, table_column=Column(min_width=10)),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            TextColumn("left  {task.description}", table_column=Column(no_wrap=False)),  # the only one that may wrap
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=total_kimg)
        self.bar.update(self.task, completed=start / 1000)

    def open(self) -> None:
        self.bar.start()

    def show(self, nimg: int, averages: dict[str, float]) -> None:
        values = " ".join(f"{label} {averages[name]:.2f}" for name, label in SHOWN.items() if name in averages)
        text = f"{averages['images_per_second']:.0f} img/s  {values}"
        self.bar.update(self.task, completed=nimg / 1000, description=text)
        if not self.console.is_terminal:
            self.console.print(f"{nimg / 1000:g}/{self.total:g} kimg  {text}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.bar.stop()
