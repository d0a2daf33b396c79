"""Quality against diversity over thresholds of truncation (Brock et al. 2019, sec. 3.1 and fig. 17)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from equipoise.core.files import replace_file, writing
from equipoise.core.latents import require_threshold
from equipoise.generate import Generator, grid, png, sample, truncated

from .evaluator import Evaluation, Evaluator
from .sources import of_generator

if TYPE_CHECKING:
    from equipoise.core.plots import Figure

__all__ = ["Step", "draw_curves", "sweep", "thresholds", "tradeoff_table", "write_sweep"]

GRID = 100
"""Images in the grid of a threshold."""

PANELS = (
    ("frechet", "fid"),
    ("precision", "recall"),
    ("density", "coverage"),
    ("top_probability", "agreement"),
    ("effective_classes",),
)
"""Numbers that share a plot, if they were measured."""


class Step(NamedTuple):
    """One threshold of a sweep, None for untruncated.  found: the evaluation.  pixels: the first images."""

    threshold: float | None
    found: Evaluation
    pixels: NDArray[np.uint8]

    @property
    def label(self) -> str:
        return "none" if self.threshold is None else f"{self.threshold:.4g}"


def thresholds(text: str, steps: int) -> list[float]:
    """Parse thresholds: "0.2:2.0" gives `steps` equal steps from 0.2 to 2.0, and "0.5,1,2" gives these three.

    Raises:
        ValueError: for other text, thresholds that are not above 0, or a range in fewer than 2 steps.

    >>> thresholds("0.5:2", 4)
    [0.5, 1.0, 1.5, 2.0]
    """
    try:
        values = [float(part) for part in re.split("[:,]", text)]
    except ValueError:
        values = []
    if not values or (":" in text and (len(values) != 2 or "," in text)):
        raise ValueError(f"thresholds are given as LOW:HIGH, such as 0.2:2.0, or as a list 0.5,1,2; got {text!r}")
    for value in values:
        require_threshold(value)
    if ":" not in text:
        return values
    if steps < 2 or not np.isfinite(values).all():
        raise ValueError(f"{text!r} in {steps} steps is not a range: give two finite numbers, and at least 2 steps")
    return [round(float(value), 10) for value in np.linspace(values[0], values[1], steps)]


def sweep(
    generator: Generator, evaluator: Evaluator, values: Iterable[float | None], *, name: str = "a generator"
) -> list[Step]:
    """Measure the generator at each threshold, with batch-norm statistics for that threshold. None: no truncation.

    evaluator: sets metrics, number of images and seed. Image i of every step comes from the same draw.
    name: name of the generator in the report.
    """
    steps = []
    for value in values:
        cut = generator if value is None else truncated(generator, value)
        label = name if value is None else f"{name} truncated at {value:g}"
        pixels = np.concatenate([x for x, _ in sample(cut, GRID, seed=evaluator.seed)])
        steps.append(Step(value, evaluator(of_generator(label, cut, None)), pixels))
    return steps


def write_sweep(steps: Sequence[Step], out: Path) -> list[Path]:
    """Write sweep.json, sweep.png (curves), thresholds.png (ten images per threshold) and grids/. Returns the paths.

    Raises:
        ValueError: if matplotlib is not installed.
        RunError: if `out` cannot be written.
    """
    from equipoise.core.plots import encode

    report = [{"threshold": step.threshold} | step.found.report for step in steps]
    contents = {
        "sweep.json": f"{json.dumps(report, indent=1)}\n".encode(),
        "sweep.png": encode(draw_curves(steps))[1],
        "thresholds.png": png(grid(np.concatenate([step.pixels[:10] for step in steps]))),
    } | {f"grids/{step.label}.png": png(grid(step.pixels)) for step in steps}
    with writing(out):
        (out / "grids").mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            replace_file(out / file, content)
    return [out / file for file in contents]


def tradeoff_table(steps: Sequence[Step]) -> Table:
    """A table with a row for each threshold."""
    names = list(steps[0].found.numbers)
    table = Table("threshold", *(name.replace("_", " ") for name in names))
    for step in steps:
        table.add_row(step.label, *(f"{number.value:.4g}" for number in step.found.numbers.values()))
    return table


def draw_curves(steps: Sequence[Step]) -> Figure:
    """Plot every number over the threshold, dashed without truncation; and precision over recall if both are there."""
    from equipoise.core.plots import figure

    numbers: Mapping[str, list[float]] = {
        name: [step.found.numbers[name].value for step in steps] for name in steps[0].found.numbers
    }
    placed = {name for panel in PANELS for name in panel}
    panels = [[name for name in panel if name in numbers] for panel in PANELS]
    panels += [[name] for name in numbers if name not in placed]
    panels = [panel for panel in panels if panel]
    pair = "precision" in numbers and "recall" in numbers
    count = len(panels) + pair
    columns = min(3, count)
    fig, axes = figure(-(-count // columns), columns, width=3.6, height=2.8)
    x = np.array([np.nan if step.threshold is None else step.threshold for step in steps])  # NaN is not drawn
    for ax, panel in zip(axes, panels, strict=False):
        for name in panel:
            (line,) = ax.plot(x, numbers[name], marker="o", markersize=3, label=name)
            for i in np.flatnonzero(np.isnan(x)):
                ax.axhline(numbers[name][i], color=line.get_color(), linestyle="--", linewidth=1)
        ax.set_xlabel("threshold of truncation")
        ax.legend(frameon=False)
    if pair:
        mark_tradeoff(axes[len(panels)], steps, numbers["recall"], numbers["precision"])
    for ax in axes[count:]:
        ax.set_axis_off()
    return fig


def mark_tradeoff(ax: Any, steps: Sequence[Step], recall: Sequence[float], precision: Sequence[float]) -> None:
    ax.plot(recall, precision, marker="o", markersize=3)
    for step, x, y in zip(steps, recall, precision, strict=True):
        ax.annotate(step.label, (x, y), textcoords="offset points", xytext=(3, 3), fontsize=7)
    ax.set_xlabel("recall: diversity")
    ax.set_ylabel("precision: quality")
