"""A run's directory: claim it for one config; read its config and statistics; choose its feature network."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from equipoise.config import SCHEDULE_ONLY, TrainConfig, components, known_to, override, to_text
from equipoise.core.files import read_file, remove_litter, replace_file, writing
from equipoise.core.grammar import differences, parse
from equipoise.data import MNIST, Digits, Few

from .checkpoint import FOLDERS
from .logs import LARGEST, read_log
from .migration import of_today

__all__ = [
    "NOTICE",
    "Run",
    "claim",
    "config_text",
    "keep_notice",
    "notice_of",
    "own_features",
    "parse_config",
    "read_run",
    "statistics_of",
]

NOTICE = "NOTICE.txt"
"""File of a run whose weights began as weights that others published: their licence."""


class Run(NamedTuple):
    """A run on disk. folder: its directory.  config: its settings.  stats: the lines of stats.jsonl, oldest first."""

    folder: Path
    config: TrainConfig
    stats: list[dict[str, float]]

    @property
    def name(self) -> str:
        return str(self.folder)


def read_run(folder: Path, known: Mapping[str, Any] | None = None) -> Run:
    """Read the run in `folder`, even while it trains. `known`: components its config may call, default the library's.

    Raises:
        ValueError: if the folder holds no run, config.txt is damaged, or the config names unknown components.
    """
    path = folder / "config.txt"
    if not path.exists():
        raise ValueError(
            f"{folder} is not a run: it holds no config.txt. Give a directory that `equipoise train` has made"
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
        ValueError: if the file cannot be read, is not text, or is empty.
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
    """Parse a config.txt, of this version or an earlier one. Raises ValueError as `parse`, and for other values."""
    config = parse(of_today(text), known)
    if not isinstance(config, TrainConfig):
        raise ValueError(f"expected TrainConfig(...), got {shorten(text)}")
    return config


def shorten(text: str) -> str:
    """The first 60 characters of `text`, quoted on one line."""
    return repr(text if len(text) <= 60 else f"{text[:60]}...")


def statistics_of(folder: Path) -> list[dict[str, float]]:
    """The intact lines of the run's stats.jsonl, oldest first. A last line without its newline is still being written.

    That line is skipped. Damaged lines are named on stderr, and stay in the file.
    """
    path = folder / "stats.jsonl"
    try:
        content = read_file(path, LARGEST)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        print(f"warning: {path} cannot be read ({error}): the run is read without statistics", file=sys.stderr)
        return []
    log = read_log(content[: content.rfind(b"\n") + 1])
    if log.damaged:
        print(f"warning: {log.described()} of {path} left out", file=sys.stderr)
    return [values for _, values in log.intact]


def notice_of(folder: Path) -> str:
    """The notice about the weights that a run began with; empty without one.

    Raises:
        ValueError: if the file cannot be read: it must not be lost.
    """
    path = folder / NOTICE
    try:
        return read_file(path).decode().strip()
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}. It tells the licence of the weights: restore it") from None


def keep_notice(text: str, run_dir: Path) -> None:
    """Write the notice about the weights that a run starts from. An empty one is not written."""
    if text:
        with writing(run_dir):
            replace_file(run_dir / NOTICE, f"{text}\n".encode())


def own_features(config: TrainConfig) -> str:
    """Default feature network for a run's data: "digits" for digits, else "inception"."""
    data = config.data.of if isinstance(config.data, Few) else config.data
    return "digits" if isinstance(data, Digits | MNIST) else "inception"


def claim(run_dir: Path, cfg: TrainConfig) -> None:
    """Claim `run_dir` for a run of `cfg`, or check that it belongs to one. Removes temporary files of killed processes.

    Raises:
        ValueError: if config.txt is damaged, or the directory holds a run of another config. The message shows the
            difference. `total_kimg`, `report` and `compute.device` may change: they do not change what is computed.
        RunError: if the directory cannot be written.
    """
    text = to_text(cfg)
    path = run_dir / "config.txt"
    old = config_text(path) if path.exists() else None
    if old is None and any(run_dir.glob("checkpoints/*")):
        raise ValueError(f"{run_dir} holds checkpoints but no config.txt. Choose another directory.")
    if old not in (None, text):
        require_same(run_dir, old, cfg)
    for folder in FOLDERS:
        remove_litter(run_dir / folder)
    if old != text:
        with writing(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
            replace_file(path, text.encode())


def require_same(run_dir: Path, old_text: str, cfg: TrainConfig) -> None:
    """Raise ValueError if the config in `old_text` computes something other than `cfg`."""
    another = f"{run_dir} holds a run of another config"
    try:
        old = parse_config(old_text, known_to(cfg))
    except ValueError as error:  # it is damaged, or names a component that `cfg` does not know
        changed = line_changes(old_text, to_text(cfg))
        another = f"{another}, or its config.txt is damaged ({error})"
    else:
        changed = differences(override(old, {path: attrgetter(path)(cfg) for path in SCHEDULE_ONLY}), cfg)
    if changed:
        lines = "\n  ".join(changed)
        raise ValueError(f"{another}. Choose another directory, or undo:\n  {lines}")


def line_changes(old: str, new: str, shown: int = 20) -> list[str]:
    """Lines found in only one text, marked - (old) and + (new), the first `shown` of each. Takes linear time."""
    marks = (("-", old.splitlines(), {*new.splitlines()}), ("+", new.splitlines(), {*old.splitlines()}))
    changes = []
    for mark, lines, others in marks:
        changed = [f"{mark} {line[:120]}" for line in lines if line not in others]
        changes += changed[:shown] + (["..."] if len(changed) > shown else [])
    return changes
