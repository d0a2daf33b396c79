"""Parzen's ranking on MNIST: real images below the centroids of k-means (Theis et al. 2016, table 1).

    OMP_NUM_THREADS=2 python -m benchmarks.parzen mnist.npz runs/a --num 10000 --out parzen.json

Log-likelihood in nats, with its standard error, of MNIST's test set under Gaussians around `num` samples: training
images, centroids of k-means on all training images, and images of runs. 1,000 test images choose the bandwidth. The
other 9,000 are measured. Prints a Markdown table. --out writes all numbers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from equipoise.data import MNIST
from equipoise.evaluate import open_source
from equipoise.lab.theory.fooling import centroids
from equipoise.metrics import parzen_bandwidth, parzen_log_likelihood

from .report import machine, markdown

VALIDATION = 1000
CANDIDATES = np.geomspace(0.05, 0.5, 16)

Images = NDArray[np.uint8]


def images(data: MNIST) -> Images:
    """All images of `data`, in random order."""
    dataset = data.build()
    return dataset.read(np.random.default_rng(0).permutation(len(dataset)))


def measured(samples: Images, test: Images) -> dict[str, float]:
    samples_, test_ = (x.reshape(len(x), -1) / 255 for x in (samples, test))
    sigma = parzen_bandwidth(samples_, test_[:VALIDATION], CANDIDATES)
    nats = parzen_log_likelihood(samples_, test_[VALIDATION:], bandwidth=sigma)
    return {"nats": float(nats.mean()), "error": float(nats.std() / np.sqrt(len(nats))), "bandwidth": sigma}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("mnist", help="mnist.npz, or a directory that MNIST(path=...) reads")
    parser.add_argument("runs", nargs="*", help="runs whose generators are measured too")
    parser.add_argument("--num", type=int, default=10_000, help="samples")
    parser.add_argument("--steps", type=int, default=10, help="of k-means")
    parser.add_argument("--out", type=Path, help="a JSON file of all numbers")
    args = parser.parse_args(arguments)

    console = Console(stderr=True)
    train, test = images(MNIST(path=args.mnist)), images(MNIST(path=args.mnist, split="test"))
    sets: dict[str, Any] = {
        "training images": lambda: train[: args.num],
        "k-means": lambda: centroids(train, args.num, steps=args.steps),
    }
    for run in args.runs:
        sets[run] = lambda run=run: np.concatenate([x for x, _ in open_source(run).draw(args.num, 0, 250, slice(None))])
    found = {}
    for name, samples in sets.items():
        with console.status(name):
            found[name] = measured(samples(), test)
    print(
        markdown(
            ["samples", "nats", "bandwidth"],
            [[name, f"{f['nats']:.0f} ± {f['error']:.1f}", f"{f['bandwidth']:.3f}"] for name, f in found.items()],
        )
    )
    about = machine() | {"num": args.num, "steps": args.steps}
    print("\n" + ", ".join(f"{key} {value}" for key, value in about.items()))
    if args.out:
        args.out.write_text(json.dumps({"about": about, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
