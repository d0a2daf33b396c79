"""Test whether reading images keeps up with training: images per second of the loader alone and of training alone.

    python -m benchmarks.loader --recipe quickstart --rounds 5 --out loader.json

The first images of the recipe's data are written in each form that the library reads: an array in memory, a prepared
set in one file and in ten, a zip and a folder of PNGs. Each round reads --batches batches of each form, and trains on
batches that are loaded already. The result is the ratio within a round. The rate of training counts real images shown
to D. Files were just written, so the system holds them in memory: this measures the reading, not a disk.

With a GPU, batches of these forms are read and copied to it, although training would keep a set there that fits. "on
the GPU" are batches of images that stay on it.

KEY=VALUE changes the recipe, as for `equipoise train`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from equipoise.cli.options import assignments
from equipoise.config import TrainConfig, override
from equipoise.data import ArrayDataset, Dataset, Images, InfiniteBatches
from equipoise.data.prepared import write_prepared
from equipoise.data.resident import Resident
from equipoise.recipes import load
from equipoise.train import GAN, d_step, g_step

from .report import machine

__all__ = ["forms", "measure"]


def forms(dataset: Dataset, num: int, folder: Path) -> dict[str, Dataset]:
    """Write the first `num` images of `dataset` in each form below `folder` -> form: data set."""
    images = dataset.read(np.arange(min(num, len(dataset))))  # (N, C, H, W)
    names = None if dataset.class_names is None else list(dataset.class_names)
    labels = None if dataset.labels is None else dataset.labels[: len(images)]
    memory = ArrayDataset(images, labels, names)
    write_prepared(memory, folder / "one", "loader")
    write_prepared(memory, folder / "ten", "loader", shard_bytes=-(-len(images) // 10) * images[0].nbytes)
    (folder / "pngs").mkdir()
    paths = [folder / "pngs" / f"{i:06d}.png" for i in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(path)
    if labels is not None:
        pairs = [[path.name, int(label)] for path, label in zip(paths, labels, strict=True)]
        (folder / "pngs" / "dataset.json").write_text(json.dumps({"labels": pairs, "class_names": names}))
    with zipfile.ZipFile(folder / "pngs.zip", "w") as archive:
        for path in sorted((folder / "pngs").iterdir()):
            archive.write(path, path.name)
    places = {"prepared, one file": "one", "prepared, ten files": "ten", "zip of PNGs": "pngs.zip", "PNGs": "pngs"}
    return {"memory": memory} | {form: Images(folder / place).build() for form, place in places.items()}


def reading(dataset: Dataset, batch_size: int, batches: int, device: torch.device) -> Callable[[int], float]:
    """A function that measures images per second over `batches` batches, reading anew in each round."""

    def rate(position: int) -> float:
        with InfiniteBatches(dataset, batch_size, seed=0, start=position, device=device, keep=False) as endless:
            start = time.perf_counter()
            for batch in islice(endless, batches):
                batch.x.mean().item()  # waits for the device, as any use of the batch does
            return batch_size * batches / (time.perf_counter() - start)

    return rate


def training(cfg: TrainConfig, dataset: Dataset, iterations: int, device: torch.device) -> Callable[[int], float]:
    """A function that measures real images shown to D per second, over `iterations` on batches on the device."""
    gan = GAN.build(cfg, dataset.spec, device)
    ema = cfg.ema.build(gan.G)
    batches = cycle(list(islice(InfiniteBatches(dataset, cfg.batch_size, seed=0, device=device), 4)))
    d_steps = cfg.d_steps if isinstance(cfg.d_steps, int) else 1
    shown = cfg.batch_size * d_steps

    def rate(nimg: int) -> float:
        start = time.perf_counter()
        for _ in range(iterations):
            for _ in range(d_steps):
                batch = next(batches)
                d_step(gan, batch, nimg, labelled=batch)
                nimg += cfg.batch_size
            stats = g_step(gan, batch, nimg, labelled=batch)
            ema.update(gan.G, nimg, shown)
        stats["G/loss"].item()
        return shown * iterations / (time.perf_counter() - start)

    return rate


def measure(cfg: TrainConfig, num: int, rounds: int, batches: int, iterations: int) -> dict[str, list[float]]:
    """Images per second by round, of each form and of training, in turn."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        sets = forms(cfg.data.build(), num, Path(folder))
        if device.type == "cuda":
            sets["on the GPU"] = Resident(sets["memory"], device)
        rates = {form: reading(dataset, cfg.batch_size, batches, device) for form, dataset in sets.items()}
        rates["training"] = training(cfg, sets["memory"], iterations, device)
        by_round: dict[str, list[float]] = {name: [] for name in rates}
        for i in track(range(1 + rounds), description="rounds"):
            for name, rate in rates.items():
                now = rate(i * batches * cfg.batch_size)
                if i > 0:  # the first round warms up
                    by_round[name].append(now)
    return by_round


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--images", type=int, default=10_000, help="images of the data that are written in each form")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=50, help="batches read of each form in a round")
    parser.add_argument("--iterations", type=int, default=5, help="iterations of training in a round")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args(arguments)

    cfg, known = load(args.recipe)
    cfg = override(cfg, assignments(args.changes, known))
    rates = measure(cfg, args.images, args.rounds, args.batches, args.iterations)
    ratios = {name: [a / b for a, b in zip(rates[name], rates["training"], strict=True)] for name in rates}
    table = Table("source", "images/s, median", "times training, median", "least", "keeps up")
    for name, values in rates.items():
        middle, least = statistics.median(ratios[name]), min(ratios[name])
        ratio = ("", "", "") if name == "training" else (f"{middle:.1f}", f"{least:.1f}", "yes" if middle > 1 else "no")
        table.add_row(name, f"{statistics.median(values):.0f}", *ratio)
    Console().print(table)
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != "out"} | {"batch_size": cfg.batch_size}
        about = {"machine": machine(), "settings": settings, "images_per_second": rates, "times_training": ratios}
        args.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
