"""Trainings, each in a process of its own, and verdicts of the judge of digits on their images.

`carry_out` starts the processes, with `python -m benchmarks.runs RUN_DIR --against digits --at 20 40`. In the same
directory, finished runs are not repeated, and interrupted runs resume.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equipoise.config import TrainConfig, components
from equipoise.core.files import replace_file
from equipoise.core.grammar import parse
from equipoise.core.types import RunError
from equipoise.data import MNIST, DatasetConfig, Digits
from equipoise.generate import Generator, sample
from equipoise.metrics import (
    DigitsJudge,
    GaussianStats,
    class_probabilities,
    dataset_features,
    digits_judge,
    effective_classes,
    frechet_distance,
    judge_features,
    mean_top_probability,
)
from equipoise.runs import claim, config_text, statistics_of
from equipoise.train import train

__all__ = ["SAMPLES", "Judged", "Reference", "Run", "Verdict", "carry_out", "draw"]

ROOT = Path(__file__).parents[1]
SAMPLES = 5000
"""Images that the judge looks at. Distances over another number of images are not comparable."""
FEWEST_CLASSES, LEAST_SURE = 5.0, 0.5
"""A generator has collapsed if its images spread over fewer effective classes, or if the judge is less sure of them:
half of the ten digits are missing, or the images are not digits."""


@dataclass(frozen=True)
class Run:
    """A training to carry out.

    against: "digits", or a path of MNIST, whose test digits are the reference.
    at: thousands of images after which the run is judged, ascending; the last ends the run.
    """

    name: str
    cfg: TrainConfig
    folder: Path
    against: str
    at: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """The judge's verdict on generated digits after `kimg` thousand images."""

    kimg: float
    distance: float
    top_probability: float
    effective_classes: float

    @property
    def collapsed(self) -> bool:
        return self.effective_classes < FEWEST_CLASSES or self.top_probability < LEAST_SURE


@dataclass
class Judged:
    """Results of a run so far. diverged: the error that ended the run, or None."""

    against: str
    verdicts: list[Verdict] = field(default_factory=list)
    diverged: str | None = None
    seconds_per_kimg: float | None = None

    @property
    def failure(self) -> str | None:
        """Failure of the run: "diverged" (NaN), "collapsed" at its end, or None."""
        if self.diverged is not None:
            return "diverged"
        return "collapsed" if self.verdicts[-1].collapsed else None

    def save(self, folder: Path) -> None:
        replace_file(folder / "judged.json", f"{json.dumps(asdict(self), indent=1)}\n".encode())

    @classmethod
    def load(cls, folder: Path, against: str, at: Sequence[float]) -> Judged:
        """Load the results in `folder`; empty results if the run was judged against other digits, or at other times."""
        path = folder / "judged.json"
        if not path.exists():
            return cls(against)
        values = json.loads(path.read_text())
        verdicts = [Verdict(**verdict) for verdict in values["verdicts"]]
        if values["against"] != against or [verdict.kimg for verdict in verdicts] != list(at[: len(verdicts)]):
            return cls(against)
        return cls(**values | {"verdicts": verdicts})


class Reference:
    """The judge, and the digits that it compares with."""

    def __init__(self, against: str):
        config: DatasetConfig = Digits() if against == "digits" else MNIST(path=against, split="test")
        self.judge: DigitsJudge = digits_judge()
        self.stats: GaussianStats = dataset_features(self.judge, config.build())

    def verdict(self, kimg: float, images: NDArray[np.uint8]) -> Verdict:
        """The verdict on images (N, 28, 28, 1)."""
        p = class_probabilities(self.judge, images)
        distance = frechet_distance(self.stats, judge_features(self.judge, images))
        return Verdict(kimg, distance, mean_top_probability(p), effective_classes(p))


def draw(folder: Path, num: int) -> NDArray[np.uint8]:
    """Draw images (num, H, W, C) from the averaged generator that a run has saved."""
    return np.concatenate([images for images, _ in sample(Generator.from_pretrained(folder), num)])


# ---- in the process of a run -----------------------------------------------------------------------------


def train_and_judge(folder: Path, against: str, at: Sequence[float]) -> None:
    """Train the run in `folder` in stages, and judge it after each. The results go to judged.json.

    A run in stages computes the same as an uninterrupted run, because it resumes bit for bit.
    """
    cfg: TrainConfig = parse(config_text(folder / "config.txt"), components())
    judged, reference = Judged.load(folder, against, at), Reference(against)
    for kimg in at[len(judged.verdicts) :]:
        not_past(kimg, cfg, folder)
        try:
            train(replace(cfg, total_kimg=kimg), folder)
        except RunError as error:
            if "diverged" not in str(error):
                raise  # a full disk, or Ctrl-C
            judged.diverged = str(error)
        else:
            judged.verdicts.append(reference.verdict(kimg, draw(folder, SAMPLES)))
        speeds = [line["images_per_second"] for line in statistics_of(folder) if "images_per_second" in line]
        judged.seconds_per_kimg = 1000 / statistics.median(speeds) if speeds else None
        judged.save(folder)
        if judged.diverged is not None:
            return


def not_past(kimg: float, cfg: TrainConfig, folder: Path) -> None:
    """Raise ValueError if a run was trained past `kimg`, so that its generator of that time is gone."""
    nimg = max((int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()), default=0)
    iteration = cfg.batch_size * (cfg.d_steps if isinstance(cfg.d_steps, int) else cfg.d_steps.max_steps)
    if nimg >= round(kimg * 1000) + iteration:
        raise ValueError(
            f"{folder} was trained to {nimg / 1000:g} kimg before it was judged at {kimg:g}, and its generator of then "
            "is gone: choose another --out"
        )


# ---- in the benchmark's process --------------------------------------------------------------------------


def carry_out(runs: Sequence[Run], jobs: int) -> list[Judged]:
    """Carry out `runs`, `jobs` at a time, and print a line for each that ends. OMP_NUM_THREADS: threads of each run.

    Raises:
        ValueError: if a folder holds a run of another config; then no run is started.
        RunError: if a run ends in an error other than divergence. Started runs continue to their end, and no other
            run starts.
    """
    for run in runs:
        claim(run.folder, run.cfg)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(carry_out_one, run): run for run in runs}
        try:
            for i, future in enumerate(as_completed(futures), 1):
                print(f"{i}/{len(runs)} {futures[future].name}: {line(future.result())}", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def carry_out_one(run: Run) -> Judged:
    judged = Judged.load(run.folder, run.against, run.at)
    if judged.diverged is None and len(judged.verdicts) < len(run.at):
        command = [sys.executable, "-m", "benchmarks.runs", str(run.folder.resolve())]
        command += ["--against", run.against, "--at", *map(repr, run.at)]
        with (run.folder / "log.txt").open("a") as log:
            done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise RunError(f"{run.name} ended with an error: {run.folder / 'log.txt'} says which")
    return Judged.load(run.folder, run.against, run.at)


def line(judged: Judged) -> str:
    """The result of a run, in a line."""
    if judged.diverged is not None:
        return judged.diverged.partition(". ")[0]
    last = judged.verdicts[-1]
    text = f"distance {last.distance:.2f}, {last.effective_classes:.2f} classes, sure {last.top_probability:.3f}"
    speed = "" if judged.seconds_per_kimg is None else f", {judged.seconds_per_kimg:.2f} s/kimg"
    return text + speed + (f", {judged.failure}" if judged.failure else "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and judge the run whose config is RUN_DIR/config.txt.")
    parser.add_argument("folder", type=Path, metavar="RUN_DIR")
    parser.add_argument("--against", default="digits")
    parser.add_argument("--at", type=float, nargs="+", required=True)
    args = parser.parse_args()
    train_and_judge(args.folder, args.against, args.at)


if __name__ == "__main__":
    main()
