"""The interface of an experiment: settings, a run that makes numbers, a table and figures made of the numbers alone."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from equipoise import __version__
from equipoise.core.files import replace_file, writing

if TYPE_CHECKING:
    from equipoise.core.plots import Picture

__all__ = ["Experiment", "Numbers", "Table", "carry_out"]

Numbers = Mapping[str, Any]
"""Results of an experiment, by name: numbers, words, arrays and lists or dicts of these."""


@dataclass(frozen=True)
class Table:
    """The results in a few rows. Cells are text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Experiment(ABC):
    """Settings of an experiment: a `component` whose fields have defaults. Equal settings give equal numbers."""

    @abstractmethod
    def run(self) -> Numbers:
        """Run the experiment. The result holds everything that the table and the figures show."""

    @abstractmethod
    def table(self, numbers: Numbers) -> Table:
        """The result in a few rows."""

    @abstractmethod
    def draw(self, numbers: Numbers) -> dict[str, Picture]:
        """Pictures by file name without suffix. A list of pictures is an animation."""


def carry_out(experiment: Experiment, name: str, out: Path) -> tuple[Table, list[Path]]:
    """Run `experiment`. Write NAME.json, and a PNG or GIF per picture, into `out`. Returns the table and the files.

    Raises:
        ValueError: if matplotlib is not installed.
        RunError: if `out` cannot be written.
    """
    from equipoise.core.plots import encode

    numbers = experiment.run()
    report = {"experiment": repr(experiment), "equipoise": __version__, "torch": torch.__version__, "numbers": numbers}
    contents = {f"{name}.json": f"{json.dumps(report, indent=1, default=plain)}\n".encode()}
    for title, picture in experiment.draw(numbers).items():
        suffix, content = encode(picture)
        contents[f"{title}.{suffix}"] = content
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            replace_file(out / file, content)
    return experiment.table(numbers), [out / file for file in contents]


def plain(value: object) -> object:
    """Arrays and tensors as lists, for JSON."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"an experiment's numbers hold {type(value).__name__}, which JSON cannot express")
