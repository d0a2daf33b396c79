"""Cost of an evaluation: seconds of every metric, and of the Fréchet distance beside scipy's `sqrtm`, in turn.

    OMP_NUM_THREADS=2 python -m benchmarks.metrics --only all --run runs/a --against mnist.npz --out metrics.json
    OMP_NUM_THREADS=1 python -m benchmarks.metrics --only frechet --rounds 3 --out frechet.json

Images of an untrained generator, or of --run, are measured against the bundled digits, or --against, with the digits
judge. The second table times the distance of two sets of features, once the features are computed: ours, and mean,
covariance and tr sqrtm(C C') as in public code. The standard deviations of the features fall as k^-power: the faster
they fall, the more often the accurate ways are taken instead of the quick ones. CPU seconds stand beside seconds of the
clock: on a busy machine they are more reliable.

Prints Markdown tables. --out writes all numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg  # type: ignore[import-untyped]

from equipoise.evaluate import Evaluator, evaluate, open_source
from equipoise.generate import Generator
from equipoise.metrics import frechet_distance
from equipoise.metrics.registry import METRICS, OF_GENERATORS, OF_RUNS
from equipoise.recipes import load

from .report import machine, markdown

Array = NDArray[np.float64]


class Seconds:
    """Seconds of the wall clock and of the processor, by name."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}

    def of(self, name: str, work: Callable[[], Any]) -> Any:
        clock, cpu = time.perf_counter(), time.process_time()
        answer = work()
        self.times.setdefault(name, []).append((time.perf_counter() - clock, time.process_time() - cpu))
        return answer

    def rows(self) -> list[list[str]]:
        return [
            [name, *(f"{statistics.median(part):.2f}" for part in zip(*times, strict=True))]
            for name, times in self.times.items()
        ]

    def ratio(self, name: str, to: str) -> str:
        medians = [[statistics.median(part) for part in zip(*self.times[key], strict=True)] for key in (name, to)]
        clock, cpu = (a / b for a, b in zip(*medians, strict=True))
        return f"{name} takes {clock:.1f} times as long as {to}, and {cpu:.1f} times its CPU seconds\n"


def untrained() -> Generator:
    cfg, _ = load("san_digits")
    spec = cfg.data.build().spec
    return Generator(cfg.generator.build(spec).eval(), cfg.generator, spec)


def all_metrics(generator: Generator, against: str, num: int) -> Seconds:
    """Seconds of one evaluation with every metric of grey digits, part by part."""
    names = [name for name in METRICS if name not in ("fid", "modes", *OF_RUNS, *OF_GENERATORS)]
    seconds = Seconds()
    with tempfile.TemporaryDirectory() as cache:
        evaluator = Evaluator(open_source(against), metrics=names, num=num, features="digits", cache=cache)
        fake, real = evaluator.samples(open_source(generator)), evaluator.real
        seconds.of("features of the real images", lambda: (real.features, real.pixels))
        seconds.of("images and their features", lambda: fake.features)
        for name, metric in evaluator.metrics.items():
            seconds.of(name, partial(metric, fake, real, 0))
    with tempfile.TemporaryDirectory() as cache:
        whole = partial(evaluate, generator, against, metrics=names, num=num, features="digits", cache=cache)
        seconds.of("an evaluation with all of them", whole)
    return seconds


def by_sqrtm(real: Array, fake: Array) -> float:
    """The Fréchet distance by the matrix square root of the product of the covariances."""
    (m, c), (n, d) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, fake))
    root = linalg.sqrtm(c @ d)
    return float(np.square(m - n).sum() + np.trace(c) + np.trace(d) - 2 * np.trace(root.real))


def frechet(num: int, dimensions: int, rounds: int, power: float = 0.5) -> Seconds:
    """Seconds of both ways, on features with a falling spectrum like a network's."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, dimensions + 1) ** -power
    real, fake = (rng.standard_normal((num, dimensions)) * scales + shift for shift in (0, 0.01))
    ways: dict[str, Callable[[Array, Array], float]] = {"ours": frechet_distance, "sqrtm": by_sqrtm}
    seconds = Seconds()
    for i in range(rounds):
        order = sorted(ways, reverse=bool(i % 2))  # each is the first of a round in turn
        first, second = (seconds.of(name, partial(ways[name], real, fake)) for name in order)
        np.testing.assert_allclose(first, second, rtol=1e-6)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the run whose images are measured")
    parser.add_argument("--against", default="Digits", help="data to compare with, as in `equipoise evaluate`")
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--power", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["all", "frechet"], help="one of the two tables")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()

    found: dict[str, Seconds] = {}
    if args.only != "frechet":
        generator = untrained() if args.run is None else Generator.from_pretrained(args.run)
        found["all"] = all_metrics(generator, args.against, args.num)
    if args.only != "all":
        found["frechet"] = frechet(args.num, args.dimensions, args.rounds, args.power)
    for seconds in found.values():
        print(markdown(["what", "seconds", "CPU seconds"], seconds.rows()))
    if "frechet" in found:
        print(found["frechet"].ratio("sqrtm", to="ours"))
    if args.out:
        settings = {key: getattr(args, key) for key in ("num", "against", "dimensions", "power", "rounds")}
        about = {"machine": machine(), "settings": settings} | {name: s.times for name, s in found.items()}
        args.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
