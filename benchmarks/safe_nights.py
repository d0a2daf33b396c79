"""Signals to a run at random moments: the training that is lost, and the time until the checkpoint is safe.

    OMP_NUM_THREADS=1 python -m benchmarks.safe_nights --times 10 --out safe_nights.json

A run of `quickstart`, with a checkpoint by time, gets SIGHUP, SIGUSR1, SIGTERM or SIGKILL at a random moment of its
training. Lost are the images that D has seen since the newest checkpoint. A checkpoint is safe when its folder has its
final name, on disk. The time counts from the end of the iteration in which the signal came.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from .report import machine, markdown
from .victims import PATIENCE, Victim

__all__ = ["Case", "main", "watched"]

SIGNALS = ("SIGHUP", "SIGUSR1", "SIGTERM", "SIGKILL")
OVERRIDES = ("total_kimg=1000", "report.snapshot_kimg=1000")


@dataclass(frozen=True)
class Case:
    """A run that got a signal.

    code: its exit code; None: it trained on, as SIGUSR1 asks.
    lost: images of finished iterations after the newest checkpoint, when the process had ended or trained on.
    lost_seconds: seconds from the newest checkpoint to the last finished iteration.
    safe_seconds: seconds from the end of the iteration in which the signal came until its checkpoint was safe; None for
        SIGKILL, which no process handles.
    ended_seconds: seconds from the signal to the end of the process; None: it trained on.
    """

    signal: str
    code: int | None
    lost: int
    lost_seconds: float
    safe_seconds: float | None
    ended_seconds: float | None


def watched(log: Path) -> Callable[[], None]:
    """A function that makes its process note, in `log`, the end of each iteration and of each checkpoint."""

    def watch() -> None:
        loop: Any = import_module("equipoise.train.loop")
        checkpoints = import_module("equipoise.runs").Checkpoints
        iterate, save = loop.iterate, checkpoints.save

        def note(kind: str, nimg: int) -> None:
            with log.open("a") as file:
                file.write(f"{kind} {nimg} {time.monotonic()}\n")

        def noted_iterate(run: Any, start: int) -> int:
            nimg: int = iterate(run, start)
            note("iteration", nimg)
            return nimg

        def noted_save(self: Any, nimg: int) -> None:
            new = not (self.folder / f"{nimg:012d}").exists()
            save(self, nimg)
            if new:
                note("checkpoint", nimg)

        loop.iterate, checkpoints.save = noted_iterate, noted_save

    return watch


def events(log: Path) -> Iterator[tuple[str, int, float]]:
    """Kind, nimg and time of each complete line."""
    for line in log.read_text().splitlines() if log.exists() else ():
        words = line.split()
        if len(words) == 3:
            yield words[0], int(words[1]), float(words[2])


def interrupted(name: str, folder: Path, seconds: float, every: float) -> Case:
    """Train in `folder`, send the signal `name` after `seconds` of training, and read what is there afterwards.

    every: `report.checkpoint_minutes`.
    """
    log = folder / "log"
    settings = (*OVERRIDES, f"report.checkpoint_minutes={every:g}")
    run = Victim(["train", "quickstart", str(folder / "run"), *settings], folder / "said", watched(log))
    while run.running and not any(events(log)):
        time.sleep(0.02)
    time.sleep(seconds)
    sent = time.monotonic()
    run.after(0, getattr(signal, name))
    if name == "SIGUSR1":
        while run.running and not any(kind == "checkpoint" and at > sent for kind, _, at in events(log)):
            time.sleep(0.02)
        seen = list(events(log))
        run.after(0, signal.SIGKILL)
        run.end(PATIENCE)
        code, ended = None, None
    else:
        code, ended = run.end(time.perf_counter() - run.start + PATIENCE).code, time.monotonic() - sent
        seen = list(events(log))
    return measured(name, seen, sent, code, ended)


def measured(name: str, seen: list[tuple[str, int, float]], sent: float, code: int | None, ended: float | None) -> Case:
    iterations = [(nimg, at) for kind, nimg, at in seen if kind == "iteration"]
    checkpoints = [(nimg, at) for kind, nimg, at in seen if kind == "checkpoint"]
    asked = [(nimg, at) for nimg, at in checkpoints if at > sent]
    kept, _ = checkpoints[-1] if checkpoints else (0, 0.0)
    after = [(nimg, at) for nimg, at in iterations if nimg > kept and (name != "SIGUSR1" or not asked)]
    safe = None
    if asked:
        nimg, at = asked[0]
        safe = at - next(end for seen_nimg, end in iterations if seen_nimg == nimg)
    begun = next((at for nimg, at in iterations if nimg == kept), iterations[0][1])
    lost_seconds = after[-1][1] - begun if after else 0.0
    return Case(name, code, after[-1][0] - kept if after else 0, lost_seconds, safe, ended)


def table(cases: list[Case]) -> str:
    """A row for each signal: exit codes, the largest loss, and the times."""
    rows = []
    for name in SIGNALS:
        of = [case for case in cases if case.signal == name]
        codes = sorted({"trains on" if case.code is None else str(case.code) for case in of})
        safe = [case.safe_seconds for case in of if case.safe_seconds is not None]
        ended = [case.ended_seconds for case in of if case.ended_seconds is not None]
        rows.append(
            [
                name,
                str(len(of)),
                ", ".join(codes),
                f"{max(case.lost for case in of)}",
                f"{max(case.lost_seconds for case in of):.1f}",
                spread(safe),
                spread(ended),
            ]
        )
    head = ["signal", "runs", "exit code", "most images lost", "most seconds lost", "until safe, s", "until ended, s"]
    return markdown(head, rows)


def spread(values: list[float]) -> str:
    """The median and the largest of `values`."""
    return f"{statistics.median(values):.2f} (at most {max(values):.2f})" if values else "-"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="runs for each signal")
    parser.add_argument("--seconds", type=float, default=12.0, help="longest time of training before the signal")
    parser.add_argument("--every", type=float, default=0.1, help="minutes between checkpoints by time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for module in ("cli.app", "recipes", "train"):  # imported here, so that forks need not
        import_module(f"equipoise.{module}")
    chance, cases = random.Random(args.seed), []
    for i in range(args.times * len(SIGNALS)):
        with tempfile.TemporaryDirectory() as folder:
            name = SIGNALS[i % len(SIGNALS)]
            cases.append(interrupted(name, Path(folder), chance.uniform(0, args.seconds), args.every))
        print(cases[-1], flush=True)
    print(f"\nA checkpoint every {args.every * 60:g} s.\n\n{table(cases)}")
    if args.out:
        found = {"machine": machine(), "settings": {"times": args.times, "seconds": args.seconds, "every": args.every}}
        args.out.write_text(json.dumps(found | {"cases": [asdict(case) for case in cases]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
