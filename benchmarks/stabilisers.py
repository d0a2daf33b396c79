"""Stabilisers side by side: one change to one plain GAN each, with the same networks, optimiser, images and budget.

    OMP_NUM_THREADS=1 python -m benchmarks.stabilisers --out DIR --kimg 60 --seeds 0 1 2 --jobs 2

The plain GAN is a DCGAN without norm in D. A row of `techniques` names its changes to the config, with the strengths of
the library's defaults unless it says otherwise. Nothing is tuned, and every D makes one update per update of G. Times
are taken while runs share the machine: `benchmarks.cost` compares costs in turn.

Writes DIR/results.json, results.md and samples.png, and each run to DIR/NAME-SEED. The same command resumes where it
was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.augment import InstanceNoise
from equipoise.config import TrainConfig, override, to_text
from equipoise.core.schedules import Linear
from equipoise.data import Digits, Few
from equipoise.losses import (
    R1,
    R2,
    Consensus,
    FeatureMatching,
    GradientPenalty,
    HistoricalAverage,
    NonSaturating,
    RelativisticPairing,
    Wasserstein,
)
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head
from equipoise.rules import Adam
from equipoise.weights import ClipWeights, SpectralNorm

from .report import brief, labelled_grid, machine, markdown, spread
from .runs import SAMPLES, Judged, Reference, Run, Verdict, carry_out, draw

__all__ = ["plain", "techniques"]

Changes = dict[str, Any]


def plain(kimg: float, *, width: int = 32) -> TrainConfig:
    """The GAN that every technique changes. Its D is not stabilised."""
    adam = Adam(lr=1e-3, betas=(0.0, 0.99))  # the quickstart's
    return TrainConfig(
        data=Digits(),
        generator=DCGANGenerator(width=width),
        discriminator=DCGANDiscriminator(width=width, norm="none"),
        head=Head(init_std=0.02),
        loss=NonSaturating(),
        g_optim=adam,
        d_optim=adam,
        batch_size=64,
        total_kimg=kimg,
    )


def techniques(kimg: float) -> dict[str, Changes]:
    """Name -> fields of `plain` to change, for `config.override`."""
    return {
        "plain": {},
        "batch norm in D": {"discriminator.norm": "batch"},
        "feature matching": {"terms": (FeatureMatching(adversarial=False),)},
        "feature matching, beside the loss": {"terms": (FeatureMatching(),)},
        "minibatch discrimination": {"discriminator.minibatch": "discrimination"},
        "historical averaging": {"terms": (HistoricalAverage(), HistoricalAverage(player="G"))},
        "label smoothing": {"loss.smoothing": 0.1},
        "virtual batch norm in G": {"generator.norm": "virtual"},
        "two time scales": {"d_optim.lr": 2e-3, "g_optim.lr": 5e-4},
        "instance noise": {"augment": InstanceNoise(std=Linear(start=0.1, end=0.0, kimg=kimg))},
        "WGAN, clipped": {"loss": Wasserstein(), "constraints": (ClipWeights(),)},
        "WGAN-GP": {"loss": Wasserstein(), "terms": (GradientPenalty(),)},
        "R1": {"terms": (R1(every=1),)},
        "R1, lazy": {"terms": (R1(every=16),)},
        "relativistic pairing, R1, R2": {
            "loss": RelativisticPairing(),
            "terms": (R1(gamma=1.0, every=1), R2(gamma=1.0, every=1)),  # the first gamma of the recipe `r3gan`
        },
        "consensus": {"terms": (Consensus(),)},
        "spectral norm": {"d_normalizer": SpectralNorm()},
        "SAN": {"head.san": True},
        "spectral norm, SAN": {"d_normalizer": SpectralNorm(), "head.san": True},
    }


def in_words(changes: Changes) -> str:
    """Changes as on the command line: ``d_optim.lr=0.0004 g_optim.lr=0.0001``."""
    return " ".join(f"{path}={brief(value)}" for path, value in changes.items())


def table(rows: Mapping[str, Changes], judged: Mapping[str, Sequence[Judged]], real: Verdict) -> str:
    """A Markdown table, a row per technique: mean ± standard deviation over the seeds that did not diverge."""
    head = ["technique", "changes", "Fréchet distance", "top probability", "effective classes", "s/kimg", "failures"]
    numbers = (f"{real.distance:.2f}", f"{real.top_probability:.3f}", f"{real.effective_classes:.2f}")
    lines = [["real digits", "", *numbers, "", ""]]
    for name, changes in rows.items():
        runs = judged[name]
        ends = [run.verdicts[-1] for run in runs if run.diverged is None]
        speeds = [run.seconds_per_kimg for run in runs if run.seconds_per_kimg is not None]
        lines.append(
            [
                name,
                f"`{in_words(changes)}`" if changes else "",
                spread([end.distance for end in ends], ".2f"),
                spread([end.top_probability for end in ends], ".3f"),
                spread([end.effective_classes for end in ends], ".2f"),
                spread(speeds, ".2f"),
                failures(runs),
            ]
        )
    return markdown(head, lines)


def failures(runs: Sequence[Judged]) -> str:
    """Failed runs by kind: ``1/3 diverged, 1/3 collapsed``; ``0/3`` without a failure."""
    kinds = [run.failure for run in runs]
    counts = [f"{kinds.count(kind)}/{len(runs)} {kind}" for kind in ("diverged", "collapsed") if kind in kinds]
    return ", ".join(counts) or f"0/{len(runs)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kimg", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(techniques(1.0)), metavar="NAME", help="techniques to try")
    parser.add_argument("--against", default="digits", help="the reference: digits, or MNIST's path for its test set")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--width", type=int, default=32, help="of both networks")
    args = parser.parse_args()
    against = args.against if args.against == "digits" else str(Path(args.against).resolve())

    baseline, all_rows = plain(args.kimg, width=args.width), techniques(args.kimg)
    rows = {name: all_rows[name] for name in args.only or all_rows}
    runs = [
        Run(
            name=f"{name}, seed {seed}",
            cfg=override(baseline, changes | {"seed": seed}),
            folder=args.out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}",
            against=against,
            at=(args.kimg,),
        )
        for seed in args.seeds  # all techniques with one seed, then the next
        for name, changes in rows.items()
    ]
    results = carry_out(runs, args.jobs)
    judged = {name: results[i :: len(rows)] for i, name in enumerate(rows)}

    digits = Few(num=SAMPLES).build()
    real = Reference(against).verdict(0, digits.read(np.arange(SAMPLES)).transpose(0, 2, 3, 1))
    text: str = table(rows, judged, real)
    about = {"machine": machine(), "settings": vars(args) | {"out": str(args.out)}, "samples": SAMPLES}
    about |= {"plain": to_text(baseline), "real": asdict(real)}
    results_of = {
        name: {"changes": in_words(rows[name]), "failures": failures(of), "runs": [asdict(run) for run in of]}
        for name, of in judged.items()
    }
    (args.out / "results.json").write_text(json.dumps(about | {"techniques": results_of}, indent=1) + "\n")
    (args.out / "results.md").write_text(text)
    tiles = [
        (name, draw(run.folder, 24) if one.verdicts else None)
        for name, run, one in zip(rows, runs, results, strict=False)  # of the first seed
    ]
    labelled_grid(tiles, columns=5, across=6, shape=(4 * 28, 6 * 28)).save(args.out / "samples.png", optimize=True)
    print(text)


if __name__ == "__main__":
    main()
