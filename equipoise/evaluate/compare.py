"""Runs side by side: differences in config, training curves, metrics, and images drawn from the same seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from equipoise.config import TrainConfig
from equipoise.core.files import replace_file, writing
from equipoise.core.grammar import differences
from equipoise.data.base import PathLike
from equipoise.generate import Generator, grid, sample
from equipoise.runs import Run, own_features, read_run

from .evaluator import Evaluation, Evaluator
from .sources import of_dataset, open_source

if TYPE_CHECKING:
    from equipoise.core.plots import Figure

__all__ = ["Compared", "compare", "compare_table", "config_rows", "draw_curves", "draw_grids", "write_compared"]

GRID = 100
"""Images in the grid of a run."""

SHARED = ("nimg", "kimg", "images_per_second")
"""Names in every line of statistics, whatever the run trains."""

UNCURVED = "D/sigma/"
"""Prefix of statistics of single layers, which networks do not share."""


class Compared(NamedTuple):
    """A run, images that it draws (N, H, W, C), and their evaluation, or None."""

    run: Run
    pixels: NDArray[np.uint8]
    found: Evaluation | None


def compare(
    folders: Sequence[Path],
    *,
    metrics: str | Sequence[str] | None = "frechet,pr,classes",
    num: int = 10_000,
    seed: int = 0,
    features: str | None = None,
    weights: PathLike | None = None,
    cache: PathLike | None = None,
    known: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> list[Compared]:
    """Read runs, draw from each with the same seed, and measure each against the data that it was trained on.

    metrics and the arguments after it: as in `evaluate`. metrics=None measures nothing.
    features: one network for all runs. None: the digits judge if the first run was trained on digits, else inception.

    Raises:
        ValueError: for fewer than two directories, a directory without a run and its generator, or as `evaluate`.
    """
    if len(folders) < 2:
        raise ValueError("a comparison needs at least two runs: name their directories")
    runs = [read_run(folder, known) for folder in folders]
    generators = [Generator.from_pretrained(folder, known) for folder in folders]
    evaluators: dict[str, Evaluator] = {}
    if metrics is not None:
        network = own_features(runs[0].config) if features is None else features
        for data in {repr(run.config.data): run.config.data for run in runs}.values():
            evaluators[repr(data)] = Evaluator(
                of_dataset(repr(data), data.build()),
                metrics=metrics,
                num=num,
                seed=seed,
                features=network,
                weights=weights,
                cache=cache,
                progress=progress,
            )
    compared = []
    for run, generator in zip(runs, generators, strict=True):
        pixels = np.concatenate([x for x, _ in sample(generator, GRID, seed=seed)])
        evaluator = evaluators.get(repr(run.config.data))
        evaluation = None if evaluator is None else evaluator(open_source(run.folder, known))
        compared.append(Compared(run, pixels, evaluation))
    return compared


# ---- the table -------------------------------------------------------------------------------------------


def config_rows(configs: Sequence[TrainConfig]) -> dict[str, list[str]]:
    """Differences between configs: a field's dotted path -> its value in each.

    Where runs have different components, the components are shown, not the fields that only one component has.

    >>> config_rows([quickstart(), replace(quickstart(), seed=1)])
    {'seed': ['0', '1']}
    """
    lines = [line for config in configs[1:] for line in differences(configs[0], config)]
    differing = dict.fromkeys(line.partition(": ")[0] for line in lines)
    paths = [path for path in differing if not any(path.startswith(f"{other}.") for other in differing)]
    return {path: [repr(reduce(getattr, path.split("."), config)) for config in configs] for path in paths}


def stat_rows(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Rows for kimg, the median of images per second, and the last value of every other statistic of any run."""
    names = dict.fromkeys(name for run in runs for line in run.stats for name in line)
    shown = [name for name in names if name not in SHARED and not name.startswith(UNCURVED)]
    rows = {
        "kimg": [number(run.stats[-1]["kimg"]) if run.stats else "" for run in runs],
        "images per second": [number(speed(run)) for run in runs],
    }
    return rows | {name: [number(last(run, name)) for run in runs] for name in shown}


def measured_rows(compared: Sequence[Compared]) -> dict[str, list[str]]:
    numbers = [{} if entry.found is None else entry.found.numbers for entry in compared]
    names = dict.fromkeys(name for each in numbers for name in each)
    return {name: [number(each[name].value if name in each else None) for each in numbers] for name in names}


def speed(run: Run) -> float | None:
    speeds = [line["images_per_second"] for line in run.stats if "images_per_second" in line]
    return median(speeds) if speeds else None


def last(run: Run, name: str) -> float | None:
    return next((line[name] for line in reversed(run.stats) if name in line), None)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def compare_table(compared: Sequence[Compared]) -> Table:
    """A table in three parts: fields of the config that differ, the last statistics, and the metrics."""
    table = Table("", *(entry.run.name for entry in compared))
    runs = [entry.run for entry in compared]
    for part in (config_rows([run.config for run in runs]), stat_rows(runs), measured_rows(compared)):
        for name, cells in part.items():
            table.add_row(name, *cells)
        table.add_section()
    return table


# ---- figures ---------------------------------------------------------------------------------------------


def draw_curves(runs: Sequence[Run]) -> Figure:
    """Plot every statistic over kimg: one plot each, with a line for each run that has the statistic."""
    from equipoise.core.plots import COLORS, figure

    names = dict.fromkeys(name for run in runs for line in run.stats for name in line)
    shown = [name for name in names if name not in SHARED[:2] and not name.startswith(UNCURVED)]
    if not shown:
        raise ValueError("none of these runs has written statistics yet: train until the first log_kimg")
    columns = min(4, len(shown))
    fig, axes = figure(-(-len(shown) // columns), columns, width=3.4, height=2.4)
    for ax, name in zip(axes, shown, strict=False):
        for run, color in zip(runs, cycle(COLORS)):
            lines = [line for line in run.stats if name in line]
            x, y = ([line[key] for line in lines] for key in ("kimg", name))
            ax.plot(x, y, color=color, linewidth=1, marker="." if len(lines) < 20 else "", label=run.name)
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("kimg")
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", frameon=False)
    return fig


def draw_grids(compared: Sequence[Compared]) -> Figure:
    """Draw the grids of the runs side by side. Equal places come from equal z."""
    from equipoise.core.plots import figure

    fig, axes = figure(1, len(compared), width=3.6, height=3.8)
    for ax, entry in zip(axes, compared, strict=True):
        picture = grid(entry.pixels)
        ax.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", interpolation="nearest")
        ax.set_title(entry.run.name, fontsize=8)
        ax.set_axis_off()
    return fig


def write_compared(compared: Sequence[Compared], out: Path) -> list[Path]:
    """Write compare.json, curves.png and grids.png. Returns their paths.

    Raises:
        ValueError: if matplotlib is not installed, or no run has statistics.
        RunError: if `out` cannot be written.
    """
    from equipoise.core.plots import encode

    runs = [entry.run for entry in compared]
    report: Mapping[str, Any] = {
        "runs": [run.name for run in runs],
        "config": config_rows([run.config for run in runs]),
        "stats": [run.stats[-1] if run.stats else None for run in runs],
        "images_per_second": [speed(run) for run in runs],
        "evaluation": [None if entry.found is None else entry.found.report for entry in compared],
    }
    contents = {
        "compare.json": f"{json.dumps(report, indent=1)}\n".encode(),
        "curves.png": encode(draw_curves(runs))[1],
        "grids.png": encode(draw_grids(compared))[1],
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            replace_file(out / file, content)
    return [out / file for file in contents]
