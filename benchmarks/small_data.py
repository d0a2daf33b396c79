"""Training on a few digits, with and without adaptive augmentation: the recipe `ada`, and the same without ADA.

    OMP_NUM_THREADS=1 python -m benchmarks.small_data --out DIR --images 500 --kimg 300 --seeds 0 1 2 --jobs 2

D soon overfits to a few hundred images, and from then on a plain GAN gets worse. Both see the same digits, `Few`, with
equal numbers of each class. Generated images are compared with all 10,000 bundled digits, or with MNIST's test set
(--against), at the end of each of --stages equal parts of the run.

Writes DIR/results.json, results.md and curves.png, and each run to DIR/NAME-SEED. The same command resumes where it was
stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from equipoise.augment import NoAugment
from equipoise.config import TrainConfig, override, to_text
from equipoise.data import Few
from equipoise.recipes import load
from equipoise.runs import statistics_of

from .report import SCALE, Plot, machine, markdown, spread
from .runs import SAMPLES, Judged, Run, carry_out

__all__ = ["METHODS", "baseline"]

METHODS: dict[str, dict[str, Any]] = {"ADA": {}, "none": {"augment": NoAugment()}}
"""Name -> fields of `baseline` to change."""
COLORS = {"ADA": (31, 99, 181), "none": (200, 62, 40)}

Curve = list[tuple[float, float]]


def baseline(images: int, kimg: float, *, width: int) -> TrainConfig:
    """The recipe `ada` on `images` digits."""
    changes = {"data": Few(num=images), "generator.width": width, "discriminator.width": width, "total_kimg": kimg}
    cfg: TrainConfig = override(load("ada")[0], changes)
    return cfg


def table(judged: Mapping[str, Sequence[Judged]], p: Mapping[str, Sequence[Curve]], at: Sequence[float]) -> str:
    """A Markdown table, a row per stage: the distance of each method, and the p that ADA had reached, over seeds."""
    rows = []
    for i, kimg in enumerate(at):
        there = {name: [run.verdicts[i] for run in runs if i < len(run.verdicts)] for name, runs in judged.items()}
        strength = [curve_at(curve, kimg) for curve in p["ADA"]]
        distances = [spread([verdict.distance for verdict in there[name]], ".2f") for name in METHODS]
        rows.append([f"{kimg:g}", *distances, spread([v for v in strength if v is not None], ".3f")])
    return markdown(["kimg", *(f"distance, {name}" for name in METHODS), "p of ADA"], rows)


def curve_at(curve: Curve, kimg: float) -> float | None:
    """The last value up to `kimg` thousand images and the rest of their batch; None if there is none."""
    values = [value for x, value in curve if x < kimg + 1]
    return values[-1] if values else None


def strengths(folder: Path) -> Curve:
    """The p of ADA over kimg, from a run's statistics; empty without ADA."""
    return [(line["kimg"], line["augment/p"]) for line in statistics_of(folder) if "augment/p" in line]


def figure(distance: Mapping[str, Sequence[Curve]], p: Mapping[str, Sequence[Curve]], kimg: float) -> Image.Image:
    """Plot distance and p over kimg: a thin line per seed, a thick line for the median of the seeds that got so far."""
    picture = Image.new("RGB", (SCALE * 800, SCALE * 340), "white")
    canvas = ImageDraw.Draw(picture)
    highest = max((y for curves in distance.values() for curve in curves for _, y in curve), default=1.0)
    for left, title, top, methods in (
        (60, "distance to all digits", 1.05 * highest, distance),
        (460, "p of ADA", 1.0, {"ADA": p["ADA"]}),
    ):
        plot = Plot(canvas, left, title, "kimg", kimg, top)
        for i, (name, curves) in enumerate(methods.items()):
            for curve in curves:
                plot.line(curve, COLORS[name], 1)
            plot.line(median(curves), COLORS[name], 3)
            plot.text((left + 250, 60 + 18 * i), name, COLORS[name])
    return picture.resize((800, 340), Image.Resampling.LANCZOS)


def median(curves: Sequence[Curve]) -> Curve:
    """The median over the curves, at each x that any curve has."""
    values: dict[float, list[float]] = {}
    for x, y in (point for curve in curves for point in curve):
        values.setdefault(x, []).append(y)
    return [(x, statistics.median(values[x])) for x in sorted(values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--kimg", type=float, default=300.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stages", type=int, default=6, help="number of verdicts on a run, at equal distances")
    parser.add_argument("--against", default="digits", help="the reference: digits, or MNIST's path for its test set")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--width", type=int, default=32, help="of both networks")
    args = parser.parse_args()

    against = args.against if args.against == "digits" else str(Path(args.against).resolve())
    at = tuple(args.kimg * i / args.stages for i in range(1, args.stages + 1))
    cfg = baseline(args.images, args.kimg, width=args.width)
    runs = [
        Run(f"{name}, seed {seed}", override(cfg, changes | {"seed": seed}), args.out / f"{name}-{seed}", against, at)
        for seed in args.seeds
        for name, changes in METHODS.items()
    ]
    results = carry_out(runs, args.jobs)
    judged = {name: results[i :: len(METHODS)] for i, name in enumerate(METHODS)}
    p = {name: [strengths(run.folder) for run in runs[i :: len(METHODS)]] for i, name in enumerate(METHODS)}
    distance = {name: [[(v.kimg, v.distance) for v in run.verdicts] for run in of] for name, of in judged.items()}

    text = table(judged, p, at)
    about = {"machine": machine(), "settings": vars(args) | {"out": str(args.out)}, "samples": SAMPLES}
    verdicts = {name: [asdict(run) for run in of_method] for name, of_method in judged.items()}
    everything = about | {"config": to_text(cfg), "runs": verdicts, "p": p}
    (args.out / "results.json").write_text(json.dumps(everything, indent=1) + "\n")
    (args.out / "results.md").write_text(text)
    figure(distance, p, args.kimg).quantize(64).save(args.out / "curves.png", optimize=True)
    print(text)


if __name__ == "__main__":
    main()
