"""Cost of each stabiliser: seconds of an update of D beside an update of the plain D, in turn within one process.

    python -m benchmarks.cost --rounds 30 --batch 64 --width 32 --out cost.json

The plain GAN is `benchmarks.stabilisers.plain`. Each round times every variant on the same batch, so all meet the same
noise. The result is the ratio to plain within a round. A lazy penalty counts with its share: a round of its variant has
one period of updates.

Prints a Markdown table. --out writes it, and beside it the JSON with every round.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

from rich.progress import track

from equipoise.augment import ADA, DiffAugment
from equipoise.config import TrainConfig, override
from equipoise.core.types import Batch
from equipoise.data import InfiniteBatches
from equipoise.losses import R1, Consensus, GradientPenalty, Wasserstein
from equipoise.train import GAN, d_step
from equipoise.weights import ExactSpectralNorm, SpectralNorm, WeightNorm

from .report import machine, markdown
from .stabilisers import plain

__all__ = ["VARIANTS"]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "spectral norm": {"d_normalizer": SpectralNorm()},
    "spectral norm, exact": {"d_normalizer": ExactSpectralNorm()},
    "weight norm": {"d_normalizer": WeightNorm()},
    "SAN": {"head.san": True},
    "WGAN-GP": {"loss": Wasserstein(), "terms": (GradientPenalty(),)},
    "R1": {"terms": (R1(every=1),)},
    "R1, every 16": {"terms": (R1(every=16),)},
    "consensus": {"terms": (Consensus(),)},
    "minibatch discrimination": {"discriminator.minibatch": "discrimination"},
    "DiffAugment": {"augment": DiffAugment()},
    "ADA, p = 0.5": {"augment": ADA(heuristic="fixed", initial=0.5)},
}
"""Name -> fields of `stabilisers.plain` to change."""


class Variant:
    """A GAN whose D is updated on the same batch again and again."""

    def __init__(self, cfg: TrainConfig, batch: Batch):
        self.gan, self.batch = GAN.build(cfg, cfg.data.build().spec), batch
        self.period = math.lcm(*(term.every for term in cfg.terms))
        self.nimg = 0

    def seconds(self) -> float:
        """Seconds of one update, as the mean over a period of the penalties."""
        start = time.perf_counter()
        for _ in range(self.period):
            d_step(self.gan, self.batch, self.nimg)
            self.nimg += len(self.batch.x)
        return (time.perf_counter() - start) / self.period


def measure(cfg: TrainConfig, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds per update of D for each variant, by round."""
    batch = next(InfiniteBatches(cfg.data.build(), cfg.batch_size, seed=cfg.seed))
    variants = {name: Variant(override(cfg, changes), batch) for name, changes in VARIANTS.items()}
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in track(range(warmup + rounds), description="rounds"):
        turn = i % len(names)  # each is the first of a round in turn
        for name in names[turn:] + names[:turn]:
            now = variants[name].seconds()
            if i >= warmup:
                seconds[name].append(now)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=32, help="of both networks")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()

    cfg = override(plain(1.0, width=args.width), {"batch_size": args.batch})
    seconds = measure(cfg, args.rounds, args.warmup)
    ratios = {
        name: [own / base for own, base in zip(values, seconds["plain"], strict=True)]
        for name, values in seconds.items()
    }
    rows = []
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(ratios[name], n=4)
        rows.append([name, f"{1000 * statistics.median(values):.2f}", f"{middle:.2f}", f"{low:.2f} - {high:.2f}"])
    text = markdown(["D", "median ms per update", "times plain, median", "quartiles"], rows)
    print(text)
    if args.out:
        parameters = sum(p.numel() for p in GAN.build(cfg, cfg.data.build().spec).D.parameters())
        settings = {"rounds": args.rounds, "batch": args.batch, "width": args.width, "parameters": parameters}
        about = {"machine": machine(), "settings": settings, "seconds": seconds, "ratios": ratios}
        args.out.write_text(json.dumps(about, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
