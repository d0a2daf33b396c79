"""Choices that a run measures once and keeps: the precision of its losses, and how its convolutions are computed.

The choices are written to `tuned.json` in the run's directory when they are made. So a resumed run computes the same as
the uninterrupted run, even on another machine. Delete that file to measure again.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from equipoise.compute.convolutions import WAYS, Convolutions, Layout, ready
from equipoise.compute.distributed import from_rank_0, rank, world_size
from equipoise.compute.precision import Precision
from equipoise.core.files import read_file, read_json, replace_file, writing
from equipoise.core.types import Batch, RunError

from .gan import GAN

__all__ = ["tune"]

FILE = "tuned.json"
ROUNDS = 3
GAIN = 0.9
"""TF32 and bfloat16 must take at most this share of float32's time, to be worth their loss of precision."""

Iteration = Callable[[GAN, Batch, int], object]
"""One update of each player on a batch, at nimg."""


class Manner(NamedTuple):
    """A way to compute an iteration."""

    precision: Precision
    layout: Layout

    def __str__(self) -> str:
        return " ".join(self)


def tune(gan: GAN, run_dir: Path, iteration: Iteration) -> None:
    """Measure and choose what precision "auto" and convolutions "measured" leave open, or load earlier choices.

    A few updates of each player of a copy are timed in each precision that the config allows, and with maps in each
    layout if convolutions are measured. Only the way that `gan` computes changes.

    Raises:
        RunError: if the choices cannot be written, or earlier choices cannot be read.
    """
    asked, path = gan.cfg.compute, run_dir / FILE
    measured = asked.convolutions == "measured"
    if asked.precision != "auto" and not measured:
        return
    kept: dict[str, Any] | None = from_rank_0(lambda: read(path))
    if kept is None:
        precisions = precisions_of(gan.compute.device) if asked.precision == "auto" else (asked.precision,)
        layouts: tuple[Layout, ...] = get_args(Layout) if measured else ("contiguous",)
        seconds, choices = time_each(gan, [Manner(*w) for w in product(precisions, layouts)], iteration)
        choice = from_rank_0(lambda: choose(seconds))
        kept = {**choice._asdict(), "convolutions": choices[choice]}
        if rank() == 0:
            timed = ", ".join(f"{way} {value:.3g} s" for way, value in seconds.items())
            print(f"measured an iteration: {timed}. Chosen: {choice}, kept in {path}", file=sys.stderr)
        save(path, kept)
    gan.compute.precision = kept["precision"]
    if measured:
        gan.compute.convolutions = Convolutions(kept["convolutions"], kept["layout"], keep=partial(save, path, kept))


Choices = dict[str, str]
"""How each convolution is computed: names of ways, as in `Convolutions`."""


def time_each(gan: GAN, ways: list[Manner], iteration: Iteration) -> tuple[dict[Manner, float], dict[Manner, Choices]]:
    """Seconds of an iteration in each way, the best of `ROUNDS` rounds, and how each convolution was computed in it.

    A way that fails for a network is left out, such as channels last for a network that calls ``view`` on maps.
    """
    choices: dict[Manner, Choices] = {way: {} for way in ways}
    nimg = round(gan.cfg.total_kimg * 1000)  # growth is over then
    copy = deepcopy(gan)
    copy.compute.compile(copy.G, copy.D)
    copy.at(nimg)
    images, spec, device = gan.stages.batch_size(nimg) // world_size(), gan.spec, gan.compute.device
    x = torch.linspace(-1, 1, images * math.prod(spec.image), device=device)
    y = torch.arange(images, device=device) % spec.num_classes if spec.num_classes else None
    batch = Batch(x.view(images, *spec.image), y)
    seconds = dict.fromkeys(ways, float("inf"))
    for turn in range(ROUNDS + 1):
        for way in list(seconds):
            copy.compute.precision = way.precision
            if gan.compute.convolutions is not None:
                copy.compute.convolutions = Convolutions(choices[way], way.layout)
            start = time.perf_counter()
            try:
                iteration(copy, batch, nimg)
            except RuntimeError:
                if way.layout == "contiguous":
                    raise
                del seconds[way]
                continue
            ready(device)
            if turn > 0:  # the first round warms up
                seconds[way] = min(seconds[way], time.perf_counter() - start)
    return seconds, choices


def precisions_of(device: torch.device) -> tuple[Precision, ...]:
    """The precisions that differ on `device`."""
    return ("float32", "tf32", "bf16") if device.type == "cuda" else ("float32", "bf16")


def choose(seconds: dict[Manner, float]) -> Manner:
    """The fastest way, in float32 unless another is clearly faster."""
    fastest = min(seconds, key=seconds.__getitem__)
    exact = min((w for w in seconds if w.precision == "float32"), key=seconds.__getitem__, default=fastest)
    return fastest if seconds[fastest] < GAIN * seconds[exact] else exact


def read(path: Path) -> dict[str, Any] | None:
    try:
        settings: dict[str, Any] = read_json(read_file(path), "it")
        ways = {name for known in WAYS.values() for name in known}
        if (
            settings["precision"] not in get_args(Precision)
            or settings["layout"] not in get_args(Layout)
            or not ways.issuperset(settings["convolutions"].values())
        ):
            raise ValueError("it names choices that this version does not know")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}). Delete it to measure again.") from error
    return settings


def save(path: Path, settings: dict[str, Any]) -> None:
    """Write the choices, on rank 0; every process calls it."""

    def write() -> None:
        with writing(path.parent):
            replace_file(path, json.dumps(settings, indent=1).encode())

    from_rank_0(write)
