"""The doctor as an event of the loop: measurements at snapshots, warning lines, an early stop."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from equipoise.compute.distributed import from_rank_0
from equipoise.core.types import RunError
from equipoise.data import Dataset
from equipoise.doctor import PREFIX, Evidence, Points, curves_of, line, turns
from equipoise.runs import read_log

from .events import Moment
from .gan import GAN
from .looking import Looking

__all__ = ["Watching"]


class Lines:
    """The curves of a stats.jsonl that is being written. Each call of `read` adds the lines that are new."""

    def __init__(self, path: Path):
        self.path, self.offset = path, 0
        self.curves: dict[str, Points] = {}

    def read(self) -> None:
        """Read on. A last line without its end is left for the next call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        self.offset += len(content)
        for name, points in curves_of(values for _, values in read_log(content).intact).items():
            self.curves.setdefault(name, []).extend(points)


class Watching:
    """Measure both players at each snapshot, and tell which symptoms begin and end.

    dataset: the images that D is trained on.
    """

    def __init__(self, run_dir: Path, gan: GAN, dataset: Dataset):
        self.run_dir, self.gan, self.look = run_dir, gan, Looking(gan, dataset)
        self.report = gan.cfg.report
        self.lines = Lines(run_dir / "stats.jsonl")
        self.first: dict[str, Tensor] = {}
        """Sizes of the first steps, until they are among the statistics."""
        self.stopping: str | None = None

    def measure(self, now: Moment) -> None:
        """Add the measurements of a snapshot to the statistics."""
        if not self.report.watch:
            return
        if now.nimg == now.increment:
            self.first = self.look.first()
        if self.first and not now.asked:  # where a signal asks, the line of this moment is written already
            now.stats.add(self.first, now.nimg)
            self.first = {}
        if now.snapshot:
            now.stats.add(self.look(now.nimg), now.nimg)

    def judge(self, now: Moment) -> None:
        """Tell which symptoms begin and end: a line each, on the terminal and in the statistics."""
        if not (self.report.watch and now.snapshot):
            return
        turned = from_rank_0(self._turned)
        for name, begins, text in turned:
            now.stats.say(text)
            now.stats.add({PREFIX + name: torch.tensor(float(begins), device=self.gan.compute.device)}, now.nimg)
            if begins and name in self.report.stop_on and self.stopping is None:
                self.stopping = text
        if turned:
            now.stats.write(now.nimg, now.checkpoints.last)

    def _turned(self) -> list[tuple[str, bool, str]]:
        """Symptoms that begin or end: name, whether it begins, and the line."""
        self.lines.read()
        evidence = Evidence(self.lines.curves, self.gan.cfg)
        measured = [kimg for kimg, _ in evidence.curve("doctor/epochs")]
        return [
            (turn.symptom.name, turn.finding is not None, line(turn, evidence.kimg))
            for turn in turns(evidence, measured[-2:-1])
        ]

    def stop(self, now: Moment) -> None:
        """End the run if a symptom of `report.stop_on` has begun. Checkpoint and grid are written by then.

        Raises:
            RunError: with the symptom, and where the best generator is.
        """
        if self.stopping is None:
            return
        best = self.run_dir / "best"
        kept = f"{best} holds the best generator" if best.exists() else "no evaluation has chosen a best generator"
        raise RunError(
            f"stopped by report.stop_on after {now.nimg / 1000:g} kimg: {self.stopping}. {kept}; the last checkpoint "
            f"is {now.checkpoints.last}. The same command resumes from there."
        )
