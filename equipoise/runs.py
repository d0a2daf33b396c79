"""A run that is there to be read: its settings, its statistics, and what its images are judged by."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .config import TrainConfig, components, parse
from .data import MNIST, Digits, Few
from .files import read_file
from .logs import LARGEST, read_log

__all__ = ["Run", "config_text", "own_features", "parse_config", "read_run", "statistics_of"]


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
        ValueError: if it holds none, its config.txt is damaged, or its config names unknown components.
    """
    path = folder / "config.txt"
    if not path.exists():
        raise ValueError(
            f"{folder} is no run: it holds no config.txt. Give a directory that `equipoise train` has made"
        )
    text = config_text(path)
    try:
        config = parse_config(text, known or components())
    except ValueError as error:
        raise ValueError(
            f"cannot read the config of {folder} in {path.name}: {error}. If it comes from a file of yours, name it: "
            "--recipe FILE.py:FUNCTION"
        ) from None
    return Run(folder, config, statistics_of(folder))


def config_text(path: Path) -> str:
    """The text of a run's config.txt.

    Raises:
        ValueError: if it cannot be read, is no text, or empty.
    """
    try:
        text = read_file(path).decode()
        if not text.strip():
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Restore it from a backup, or from what `equipoise train RECIPE RUN "
            "[KEY=VALUE]... --dry-run` prints for this run"
        ) from None
    return text


def parse_config(text: str, known: Mapping[str, Any]) -> TrainConfig:
    """The config that a config.txt holds. Raises ValueError as `parse`, and for other values."""
    config = parse(text, known)
    if not isinstance(config, TrainConfig):
        raise ValueError(f"expected TrainConfig(...), got {shorten(text)}")
    return config


def shorten(text: str) -> str:
    """The first words of a text, on a line."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def statistics_of(folder: Path) -> list[dict[str, float]]:
    """The intact lines of the run's stats.jsonl, oldest first, but for one that is being written.

    Damaged lines are counted on stderr, and stay where they are.
    """
    path = folder / "stats.jsonl"
    try:
        content = read_file(path, LARGEST)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        print(f"warning: {path} cannot be read ({error}): the run is taken without statistics", file=sys.stderr)
        return []
    log = read_log(content[: content.rfind(b"\n") + 1])
    if log.damaged:
        print(f"warning: {log.described()} of {path} left out", file=sys.stderr)
    return [values for _, values in log.intact]


def own_features(config: TrainConfig) -> str:
    """The feature network that fits a run's data, if none is named: "digits" for digits, else "inception"."""
    data = config.data.of if isinstance(config.data, Few) else config.data
    return "digits" if isinstance(data, Digits | MNIST) else "inception"
