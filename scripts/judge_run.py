"""Judge generated digits: how sure the judge is, how varied the digits are, and whether their classes are as asked.

    python scripts/judge_run.py SAMPLES.npz
    python scripts/judge_run.py RUN_DIR [--num 2000] [--seed 0]

Prints the numbers and writes them next to the samples (SAMPLES.judge.json), or into the run (judge.json).
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer

from equipoise.core.files import replace_file
from equipoise.generate import Generator, write_samples
from equipoise.metrics import (
    class_agreement,
    class_probabilities,
    digits_judge,
    effective_classes,
    mean_top_probability,
)


def judge(samples: Path) -> dict[str, float]:
    """The numbers for an .npz with `x` uint8 (N, 28, 28, 1) and, for agreement, `y` (N,)."""
    with np.load(samples) as arrays:
        p = class_probabilities(digits_judge(), arrays["x"])
        numbers = {
            "samples": len(p),
            "mean_top_probability": mean_top_probability(p),
            "effective_classes": effective_classes(p),
        }
        if "y" in arrays:
            numbers["class_agreement"] = class_agreement(p, arrays["y"])
    return numbers


def main(
    source: Annotated[
        Path, typer.Argument(exists=True, help="A run directory, or an .npz that `equipoise sample` wrote.")
    ],
    num: Annotated[int, typer.Option(help="Images to draw from a run.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal images from a run.", min=0)] = 0,
) -> None:
    """Judge generated digits."""
    if source.is_dir():
        with TemporaryDirectory() as folder:
            samples = write_samples(Generator.from_pretrained(source), Path(folder) / "samples.npz", num=num, seed=seed)
            numbers = {"seed": seed, **judge(samples)}
        out = source / "judge.json"
    else:
        numbers, out = judge(source), source.with_suffix(".judge.json")
    text = json.dumps(numbers, indent=2)
    replace_file(out, f"{text}\n".encode())
    print(text)


if __name__ == "__main__":
    typer.run(main)
