"""A run that is there to be read: its settings, its statistics, and what its images are judged by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .config import TrainConfig, components, parse
from .data import MNIST, Digits, Few

__all__ = ["Run", "own_features", "read_run"]


class Run(NamedTuple):
    """folder: of the run.  config: its settings.  stats: the lines of stats.jsonl, oldest first."""

    folder: Path
    config: TrainConfig
    stats: list[dict[str, float]]

    @property
    def name(self) -> str:
        return str(self.folder)


def read_run(folder: Path, known: Mapping[str, Any] | None = None) -> Run:
    """The run in `folder`, which may still go on. `known`: components its config may call, default the library's.

    Raises:
        ValueError: if it holds none, or its config names unknown components.
    """
    path = folder / "config.txt"
    if not path.exists():
        raise ValueError(
            f"{folder} is no run: it holds no config.txt. Give a directory that `equipoise train` has made"
        )
    try:
        config = parse(path.read_text(), known or components())
    except ValueError as error:
        raise ValueError(
            f"cannot read the config of {folder}: {error}. If it comes from a file of yours, name it: "
            "--recipe FILE.py:FUNCTION"
        ) from None
    lines = folder / "stats.jsonl"
    text = lines.read_text() if lines.exists() else ""
    return Run(folder, config, [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")])


def own_features(config: TrainConfig) -> str:
    """The feature network that fits a run's data, if none is named: "digits" for digits, else "inception"."""
    data = config.data.of if isinstance(config.data, Few) else config.data
    return "digits" if isinstance(data, Digits | MNIST) else "inception"
