"""`equipoise train auto`: choose a config for the user's own pictures, and show the choice."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from .options import err, out, pasted, say

if TYPE_CHECKING:
    from rich.console import Console

    from equipoise.config import TrainConfig
    from equipoise.recipes.auto import Choice

__all__ = ["config_for"]


def config_for(changes: Mapping[str, Any], run_dir: Path, *, dry_run: bool) -> TrainConfig | None:
    """The chosen config, after a table of the choices; a run that exists keeps its first choices.

    changes: values of ``key=value`` arguments: data, and minutes or kimg, and fields of the config.
    dry_run: print the table on stdout. None is returned.

    Raises:
        ValueError: without data, or for values that do not fit.
    """
    from equipoise.runs.directory import read_run

    if (run_dir / "config.txt").exists():
        return resumed(read_run(run_dir).config, changes, run_dir)
    choice = chosen(changes)
    show(choice, run_dir, out if dry_run else err)
    return None if dry_run else choice.config


def chosen(changes: Mapping[str, Any]) -> Choice:
    from equipoise.compute.distributed import launched
    from equipoise.config import override
    from equipoise.recipes.auto import auto
    from equipoise.train.choosing import choice_for

    if launched():
        raise ValueError(
            "auto times one process, and each of several would choose for itself: give --dry-run without torchrun, and "
            "start the command that it prints with torchrun"
        )
    of_data = {
        name: value for name, value in changes.items() if name.partition(".")[0] == "data" and name != "data.mirror"
    }
    if not of_data:
        raise ValueError(
            "auto chooses a config for your pictures, and none are given: say where they are, as in data=photos"
        )
    rest = {name: value for name, value in changes.items() if name not in of_data}
    kimg = number(rest, "kimg", rest.pop("total_kimg", None))
    minutes = number(rest, "minutes", None)
    if kimg is not None and minutes is not None:
        raise ValueError(f"minutes={minutes:g} and kimg={kimg:g} both say how long the run is: give one of them")
    data = override(auto(), of_data).data
    say("looking at the pictures, and timing updates on this machine")
    device = rest.get("compute.device", "auto")
    return choice_for(data, minutes=60.0 if minutes is None else minutes, kimg=kimg, device=device, changes=rest)


def number(values: dict[str, Any], name: str, default: float | None) -> float | None:
    """Take `name` out of `values`. Raises ValueError unless it is a number above 0."""
    value = values.pop(name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise ValueError(f"{name} takes a number above 0, such as {name}=60, got {value!r}")
    return value


def resumed(config: TrainConfig, changes: Mapping[str, Any], run_dir: Path) -> TrainConfig:
    """The config of a run that exists, with later `changes`, but for those that only guided the choice."""
    from equipoise.config import override

    given = {name: value for name, value in changes.items() if name not in ("minutes", "kimg", "data")}
    if "kimg" in changes:
        given["total_kimg"] = changes["kimg"]
    asked = changes.get("data", changes.get("data.path"))
    path = getattr(config.data, "path", None)
    if asked is not None and getattr(asked, "path", asked) not in (path, config.data):
        raise ValueError(
            f"{run_dir} trains on {config.data!r}, not on {asked}: give the same data, or another folder for the run"
        )
    say(
        f"{pasted(run_dir)} goes on as chosen at its first start: see its config.txt. total_kimg=N changes its length, "
        "minutes no longer do"
    )
    updated: TrainConfig = override(config, given)
    return updated


def show(choice: Choice, run_dir: Path, console: Console) -> None:
    """Print the choices, their reasons, and the command that trains the same without `auto`."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for reason in choice.reasons:
        table.add_row(f"[bold]{reason.what}[/]", reason.chosen, f"[dim]{reason.why}[/]")
    console.print(table)
    console.print("the same without auto:\n" + command(choice, run_dir), markup=False)


def command(choice: Choice, run_dir: Path) -> str:
    """The command that trains the chosen config from its recipe."""
    from equipoise.core.grammar import as_argument, changed
    from equipoise.recipes import load

    base, _ = load(choice.recipe)
    words = [f"{path}={as_argument(after)}" for path, _, after in changed(base, choice.config)]
    return " ".join(["equipoise", "train", choice.recipe, pasted(run_dir), *map(shlex.quote, words)])
