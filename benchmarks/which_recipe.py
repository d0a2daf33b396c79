"""The small recipes at equal CPU time: distance and colours after 10, 30 and 60 CPU minutes on the same pictures.

    OMP_NUM_THREADS=1 python -m benchmarks.which_recipe --out DIR --data emoji64_stylegan.zip --size 32
        --recipes stylegan2_small progan_small --minutes 10 30 60 --seeds 0 1

CPU time is the time that the process computed, so another program on the machine changes it little. It counts
everything that `train` does after its first iteration: updates, statistics, checkpoints and grids. At each mark the
averaged generator is kept. Afterwards 2,000 of its images are judged, against at most 4,000 pictures: the Fréchet
distance of features of EfficientNet-Lite0, which no recipe trains on, and of colours (`features=colours`).

Writes DIR/results.json, DIR/results.md and a grid per mark. Cells that have ended are not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise.config import TrainConfig, override
from equipoise.core.files import replace_file
from equipoise.data import DatasetConfig, Few, Images
from equipoise.evaluate import evaluate
from equipoise.generate import Generator, averaged_generator, grid, png, save_generator
from equipoise.recipes import load
from equipoise.train import Moment, train

from .report import machine, markdown, spread

__all__ = ["Marks", "config_of"]

CHANGES: Mapping[str, Mapping[str, Any]] = {
    "progan_small": {"growth.stable_kimg": 12, "growth.fade_kimg": 8},  # grown within the first mark or two
}
"""Fields of recipes whose defaults are for longer runs."""
NUM, REFERENCE = 2000, 4000
ENDLESS = 1e6
JUDGES = ("efficientnet_lite0", "colours")


class EnoughError(Exception):
    """The last mark is passed."""


@dataclass(frozen=True)
class Mark:
    """A generator. minutes: of CPU time.  kimg: images that D had seen.  distances: by feature network."""

    minutes: float
    kimg: float
    distances: dict[str, float]


class Marks:
    """An event of a run: keep the averaged generator after each of `minutes` of CPU time, and end after the last."""

    def __init__(self, folder: Path, minutes: Sequence[float], cfg: TrainConfig):
        self.folder, self.minutes, self.cfg = folder, sorted(minutes), cfg
        self.kimg: list[float] = []
        self.start: float | None = None

    def __call__(self, now: Moment) -> None:
        if self.start is None:
            self.start = time.process_time()
        if time.process_time() - self.start < 60 * self.minutes[len(self.kimg)]:
            return
        began = time.process_time()
        spec = self.cfg.spec_of_g(now.gan.spec)
        net = averaged_generator(now.ema.model, self.cfg, now.gan.spec)
        save_generator(Generator(net, self.cfg.generator, spec, nimg=now.nimg), self.at(len(self.kimg)))
        self.kimg.append(now.nimg / 1000)
        self.start += time.process_time() - began
        if len(self.kimg) == len(self.minutes):
            raise EnoughError

    def at(self, number: int) -> Path:
        return self.folder / f"{self.minutes[number]:g}.safetensors"


def config_of(recipe: str, data: str, size: int, pictures: int | None, seed: int) -> TrainConfig:
    """The recipe on these pictures, without end and without evaluations."""
    images = Images(path=data, resolution=size)
    changes = {
        "data": images if pictures is None else Few(of=images, num=pictures),
        "seed": seed,
        "total_kimg": ENDLESS,
        "report.evaluation": None,
    }
    cfg: TrainConfig = override(load(recipe)[0], changes | dict(CHANGES.get(recipe, {})))
    return cfg


def carry_out(folder: Path, cfg: TrainConfig, minutes: Sequence[float]) -> list[Mark]:
    """Train and judge, unless `folder` holds the verdicts."""
    verdicts = folder / "marks.json"
    if not verdicts.exists():
        shutil.rmtree(folder, ignore_errors=True)
        marks = Marks(folder / "marks", minutes, cfg)
        with suppress(EnoughError):
            train(cfg, folder / "run", events=[marks])
        found, against = [], judged_by(cfg.data.of if isinstance(cfg.data, Few) else cfg.data)
        for i, kimg in enumerate(marks.kimg):
            distances = {name: distance(marks.at(i), against, name) for name in JUDGES}
            found.append(asdict(Mark(marks.minutes[i], kimg, distances)))
            images = Generator.from_pretrained(marks.at(i)).sample(100, seed=0)
            replace_file(marks.at(i).with_suffix(".png"), png(grid(images, 10)))
        replace_file(verdicts, json.dumps(found, indent=1).encode())
        shutil.rmtree(folder / "run")
    return [Mark(**mark) for mark in json.loads(verdicts.read_text())]


def judged_by(data: DatasetConfig) -> DatasetConfig:
    """The pictures that judge; of more than `REFERENCE` that many, equally of each class."""
    return Few(of=data, num=REFERENCE) if len(data.build()) > REFERENCE else data


def distance(generator: Path, against: DatasetConfig, features: str) -> float:
    found = evaluate(generator, against, metrics="frechet", num=NUM, features=features, device="cpu")
    return found.numbers["frechet"].value


def table(marks: Mapping[str, Sequence[Sequence[Mark]]], minutes: Sequence[float]) -> str:
    """A Markdown table, a row per recipe and mark, over seeds."""
    rows = []
    for recipe, seeds in marks.items():
        for i, minute in enumerate(sorted(minutes)):
            at = [seed[i] for seed in seeds]
            rate = spread([1000 * mark.kimg / (60 * minute) for mark in at], ".0f")
            numbers = [spread([mark.distances[name] for mark in at], ".3g") for name in JUDGES]
            rows.append([f"`{recipe}`", f"{minute:g}", spread([mark.kimg for mark in at], ".0f"), rate, *numbers])
    return markdown(["recipe", "CPU minutes", "kimg", "images/s", *(f"distance, {name}" for name in JUDGES)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", required=True, help="a path, as Images takes it")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--pictures", type=int, help="train on this number of them; all judge")
    parser.add_argument("--recipes", nargs="+", default=["stylegan2_small", "progan_small", "sngan_resnet_small"])
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 30, 60])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()

    marks: dict[str, list[list[Mark]]] = {recipe: [] for recipe in args.recipes}
    for seed in args.seeds:
        for recipe in args.recipes:
            cfg = config_of(recipe, args.data, args.size, args.pictures, seed)
            marks[recipe].append(carry_out(args.out / f"{recipe}-{seed}", cfg, args.minutes))
            known = {name: seeds for name, seeds in marks.items() if seeds}
            about = {"machine": machine(), "settings": vars(args) | {"out": str(args.out)}}
            results = {name: [[asdict(mark) for mark in seed] for seed in seeds] for name, seeds in known.items()}
            replace_file(args.out / "results.json", json.dumps(about | {"marks": results}, indent=1).encode())
            replace_file(args.out / "results.md", table(known, args.minutes).encode())
            print(table(known, args.minutes), flush=True)


if __name__ == "__main__":
    main()
