"""Growth of an iteration's time and memory with the batch, the width, the resolution and the number of processes.

    python -m benchmarks.cost_of_growth --out growth.json

One of these at a time is moved from its default. Each setting runs in a process of its own with one thread, or in
several processes that share the batch over gloo. It makes an iteration when asked: the trainer's updates of D and of G,
and the average of G. The images are noise, so nothing waits for data. The settings of an axis are asked in turn, so all
meet the same noise of the machine.

Counts stand beside the measurements: operations (`iteration_flops`), and the least bytes that a step holds
(`training_bytes`). Memory is the peak of resident memory, minus the memory resident before the networks were made, over
all processes together. An iteration on two images loads the code first. Linux with glibc reports these numbers.

Prints Markdown tables: every setting, and the exponents of power laws through the settings of an axis. --out writes
them, beside the JSON and the figure. --quick takes a fraction of the time, and its numbers say little.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.distributed import processes
from equipoise.config import TrainConfig, override
from equipoise.core.types import Batch, ImageSpec
from equipoise.models.counts import count, on_meta, training_bytes
from equipoise.recipes import load
from equipoise.train import GAN, d_step, g_step, iteration_flops

from .report import machine, markdown

__all__ = ["AXES", "DEFAULTS", "Setting"]

MIB = 2**20


class Setting(NamedTuple):
    """A setting to measure. batch: images of all processes.  width: of both networks.  resolution: pixels."""

    recipe: str
    batch: int
    width: int
    resolution: int
    processes: int = 1

    def config(self) -> tuple[TrainConfig, ImageSpec]:
        cfg, _ = load(self.recipe)
        widths = {"generator.width": self.width, "discriminator.width": self.width}
        return override(cfg, widths | {"batch_size": self.batch}), ImageSpec(self.resolution, 1, 10)


DEFAULTS = (
    Setting("sngan_resnet_small", batch=32, width=16, resolution=32),
    Setting("san_digits_conditional", batch=32, width=128, resolution=28),
)

AXES: dict[str, tuple[float, ...]] = {
    "batch": (16, 32, 64, 128, 256),
    "width": (0.25, 0.5, 1, 2),
    "resolution": (28, 32, 64, 128),
    "processes": (1, 2),
}
"""Values of each axis. Widths are multiples of the default width."""


def along(axis: str, default: Setting, values: Iterable[float]) -> list[Setting]:
    """The settings of an axis. Settings that the recipe's networks cannot take are left out."""
    settings = []
    for value in values:
        changes: dict[str, Any] = {axis: round(value * default.width if axis == "width" else value)}
        setting = default._replace(**changes)
        cfg, spec = setting.config()
        try:
            on_meta(cfg.generator, cfg.discriminator, cfg.head, spec)
        except ValueError:
            continue
        settings.append(setting)
    return settings


# ---- a process that makes iterations ---------------------------------------------------------------------


def serve(pipe: Connection, setting: Setting, rank: int, port: int) -> None:
    """Make an iteration for every True received, and send (its seconds, the peak of its resident bytes so far)."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as `train` does
    if setting.processes > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(setting.processes), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with processes():
        Loop(setting._replace(batch=2 * setting.processes)).iterate()
        ctypes.CDLL(None).malloc_trim(0)  # glibc gives back the memory of those two images
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the memory resident now
        before = resident("VmRSS")
        loop = Loop(setting)
        while pipe.recv():
            start = time.perf_counter()
            loop.iterate()
            pipe.send((time.perf_counter() - start, resident("VmHWM") - before))


class Loop:
    """The trainer's steps on one batch of noise."""

    def __init__(self, setting: Setting):
        self.cfg, spec = setting.config()
        self.gan = GAN.build(self.cfg, spec)
        self.ema = self.cfg.ema.build(self.gan.G)
        share = setting.batch // setting.processes
        x = torch.rand(share, spec.channels, spec.resolution, spec.resolution) * 2 - 1
        self.batch = Batch(x, torch.arange(share) % spec.num_classes)
        self.nimg = 0

    def iterate(self) -> None:
        assert isinstance(self.cfg.d_steps, int)
        begun = self.nimg
        for _ in range(self.cfg.d_steps):
            d_step(self.gan, self.batch, self.nimg)
            self.nimg += self.cfg.batch_size
        g_step(self.gan, self.batch, begun)
        self.ema.update(self.gan.G, self.nimg, self.nimg - begun)


def resident(which: str) -> int:
    """Resident bytes of this process: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


class Workers:
    """The processes of a setting."""

    def __init__(self, pipes: Sequence[Connection]):
        self.pipes = pipes

    def iterate(self) -> tuple[float, int]:
        """Make an iteration. Returns its seconds, and the bytes of all processes."""
        for pipe in self.pipes:
            pipe.send(True)
        answers = [pipe.recv() for pipe in self.pipes]
        return max(seconds for seconds, _ in answers), sum(memory for _, memory in answers)


@contextmanager
def started(setting: Setting) -> Iterator[Workers]:
    context, port = get_context("spawn"), free_port()
    pipes, children = [], []
    for rank in range(setting.processes):
        ours, theirs = context.Pipe()
        child = context.Process(target=serve, args=(theirs, setting, rank, port), daemon=True)
        child.start()
        theirs.close()  # so that a child that dies is noticed
        pipes.append(ours)
        children.append(child)
    try:
        yield Workers(pipes)
    finally:
        for pipe, child in zip(pipes, children, strict=True):
            if child.is_alive():
                pipe.send(False)
            child.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


# ---- numbers ---------------------------------------------------------------------------------------------


def measure(settings: Sequence[Setting], axis: str, rounds: int) -> list[dict[str, Any]]:
    """Measure each setting of an axis: one of the `points` each. The first round is not counted."""
    seconds: list[list[float]] = [[] for _ in settings]
    memory = [0] * len(settings)
    with ExitStack() as stack:
        workers = [stack.enter_context(started(setting)) for setting in settings]
        for i in track(range(1 + rounds), description=f"{settings[0].recipe}, {axis}"):
            for k, of_setting in enumerate(workers):
                now, memory[k] = of_setting.iterate()
                if i > 0:
                    seconds[k].append(now)
    return [
        {
            **setting._asdict(),
            "axis": axis,
            "seconds": of,
            "memory": peak,
            "flops": iteration_flops(*setting.config()),
            "least_memory": setting.processes * least_memory(setting),
        }
        for setting, of, peak in zip(settings, seconds, memory, strict=True)
    ]


def least_memory(setting: Setting) -> int:
    """The least bytes that a process holds."""
    cfg, spec = setting.config()
    G, D, of_g, of_d = on_meta(cfg.generator, cfg.discriminator, cfg.head, spec)
    return training_bytes(count(G, of_g), count(D, of_d), setting.batch // setting.processes)


QUANTITIES: dict[str, Callable[[dict[str, Any]], float]] = {
    "operations": lambda p: p["flops"] / p["batch"] / 1e6,
    "time": lambda p: 1000 * statistics.median(p["seconds"]) / p["batch"],
    "memory": lambda p: p["memory"] / p["batch"] / MIB,
    "least memory": lambda p: p["least_memory"] / p["batch"] / MIB,
}
"""Quantities of a point, per image: MFLOP, ms, MiB, MiB."""


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent b of the power law y = a x^b that is nearest in logarithms."""
    return statistics.linear_regression([math.log(v) for v in x], [math.log(v) for v in y]).slope


def signed(number: float) -> str:
    return f"{round(number, 2) + 0.0:+.2f}"  # -0.0 becomes +0.00


def curves(points: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(recipe, axis) -> its points."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for point in points:
        grouped.setdefault((point["recipe"], point["axis"]), []).append(point)
    return grouped


# ---- tables and a figure ---------------------------------------------------------------------------------


def tables(points: Sequence[dict[str, Any]]) -> str:
    rows = []
    for p in points:
        operations, ms, mib, least = (of(p) for of in QUANTITIES.values())
        speed = operations / ms  # GFLOP/s
        numbers = (f"{operations:.1f}", f"{ms:.3f}", f"{speed:.1f}", f"{mib:.2f}", f"{least:.2f}")
        rows.append([p["recipe"], p["axis"], str(p[p["axis"]]), *numbers])
    head = ["recipe", "axis", "value", "MFLOP", "ms", "GFLOP/s", "MiB", "MiB, counted"]
    slopes = [
        [recipe, axis, *(signed(exponent([p[axis] for p in of], [q(p) for p in of])) for q in QUANTITIES.values())]
        for (recipe, axis), of in curves(points).items()
    ]
    return markdown(head, rows) + "\n" + markdown(["recipe", "axis", *QUANTITIES], slopes)


LABELS = {
    "batch": "batch",
    "width": "width",
    "resolution": "resolution, pixels",
    "processes": "processes that share a batch",
}


def figure(points: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: time above, memory below, an axis in each column; counts are dashed."""
    from equipoise.core.plots import COLORS, encode  # matplotlib, an extra
    from equipoise.core.plots import figure as empty

    axes = list(dict.fromkeys(p["axis"] for p in points))
    recipes = list(dict.fromkeys(p["recipe"] for p in points))
    speed = [(p["recipe"], p["flops"] / statistics.median(p["seconds"]) / p["processes"]) for p in points]
    best = {recipe: max(of for name, of in speed if name == recipe) for recipe in recipes}  # of a process
    rows: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {  # unit -> (measured, counted)
        "ms per image": ("time", lambda p: 1000 * p["flops"] / (best[p["recipe"]] * p["processes"] * p["batch"])),
        "MiB per image": ("memory", QUANTITIES["least memory"]),
    }
    fig, plots = empty(len(rows), len(axes), width=3.1, height=2.7)
    for row, (unit, (name, counted)) in enumerate(rows.items()):
        own = plots[row * len(axes) : (row + 1) * len(axes)]
        for plot in own:
            plot.set(xscale="log", yscale="log")
        for (recipe, axis), of in curves(points).items():
            plot, color = own[axes.index(axis)], COLORS[recipes.index(recipe)]
            x, y = [p[axis] for p in of], [QUANTITIES[name](p) for p in of]
            plot.plot(x, y, "o-", color=color, label=f"exponent {signed(exponent(x, y))}", markersize=4)
            plot.plot(x, [counted(p) for p in of], "--", color=color, linewidth=1)
        low, high = min(plot.get_ylim()[0] for plot in own), max(plot.get_ylim()[1] for plot in own)
        for axis, plot in zip(axes, own, strict=True):
            values = sorted({p[axis] for p in points if p["axis"] == axis})
            plot.set(xlabel=LABELS[axis], ylim=(low, 6 * high))  # room for the legend
            plot.set_xticks(values, [str(v) for v in values])
            plot.minorticks_off()
            plot.yaxis.set_major_formatter("{x:g}")
            plot.grid(axis="y", color="#e4e4e4", linewidth=0.6)
            plot.legend(fontsize=7, frameon=False, loc="upper left")
        own[0].set_ylabel(unit)
    lines = [plots[0].plot([], [], color=COLORS[i], label=recipe)[0] for i, recipe in enumerate(recipes)]
    lines += plots[0].plot([], [], "--", color="#555555", label="counted: operations at the best rate, bytes")
    fig.legend(handles=lines, loc="outside upper center", ncols=len(lines), fontsize=8, frameon=False)
    return encode(fig)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", choices=[d.recipe for d in DEFAULTS], help="all by default")
    parser.add_argument("--axis", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two small values of each axis, two rounds")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()

    start, points = time.perf_counter(), []
    for default in (d for d in DEFAULTS if args.recipe is None or d.recipe in args.recipe):
        for axis in args.axis:
            settings = along(axis, default, AXES[axis][:2] if args.quick else AXES[axis])
            if len(settings) > 1:
                points += measure(settings, axis, 2 if args.quick else args.rounds)
    text = tables(points)
    print(text)
    print(f"{time.perf_counter() - start:.0f} s")
    if args.out:
        args.out.write_text(json.dumps({"machine": machine(), "points": points}, indent=1) + "\n")
        args.out.with_suffix(".md").write_text(text)
        args.out.with_suffix(".png").write_bytes(figure(points))


if __name__ == "__main__":
    main()
