"""The commands `recipes` and `train`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from .options import OwnRecipe, assignments, clear_errors, err, out, own_components, pasted

if TYPE_CHECKING:
    from equipoise.train import Event

__all__ = ["Train", "recipes", "train"]


class Train(TyperCommand):
    """The command `train`, which answers a setting that is typed as an option: ``--data photos``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)]
        for i, word in enumerate(args[: args.index("--")] if "--" in args else args):
            name, _, value = word.partition("=")
            if word.startswith("--") and not get_close_matches(name, (*known, "--help"), cutoff=0.8):
                ctx.fail(about_option(name, value or next(iter(args[i + 1 :]), "")))
        return super().parse_args(ctx, args)


def about_option(option: str, value: str) -> str:
    """The message for an `option` that is none, with the setting that it may mean. value: the word after it."""
    from dataclasses import fields

    from equipoise.config import TrainConfig
    from equipoise.core.mistakes import defaults, no_field

    name = option.lstrip("-").replace("-", "_")
    if is_field(name, (field.name for field in fields(TrainConfig))):
        given = value if value and not value.startswith("-") and "=" not in value else "VALUE"
        return f"there is no option {option}: settings are given as KEY=VALUE, here {shlex.quote(f'{name}={given}')}"
    wrong = no_field(TrainConfig, name, defaults(TrainConfig))
    return f"there is no option {option}: settings are given as KEY=VALUE. {wrong}"


def is_field(name: str, names: Iterable[str]) -> bool:
    return name.partition(".")[0] in names


def recipes() -> None:
    """List the recipes, one per line."""
    from rich.table import Table

    from equipoise.recipes import available

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, (_, line) in available().items():
        table.add_row(f"[bold]{name}[/]", line)
    out.print(table)


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A name from `equipoise recipes`, or a file: FILE.py:FUNCTION, settings in .yaml or .json, a run's "
            "config.txt."
        ),
    ],
    run_dir: Annotated[Path, typer.Argument(help="Folder of the run. The same command resumes it.")],
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Fields to change: loss=Hinge d_optim.lr=4e-4 'terms=[R1(gamma=5)]'."
        ),
    ] = None,
    track: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="TRACKER", help="Report to WandB or MLflow too; with settings: 'WandB(project=faces)'. Repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Print the config and stop.")] = False,
    own: OwnRecipe = None,
) -> None:
    """Train a recipe; run the same command again to resume."""
    with clear_errors():
        from equipoise import recipes as library
        from equipoise.config import components, override, to_text

        config, known = library.load(recipe, own_components(own))
        changes = assignments(overrides or (), known)
        if recipe == "auto":
            from .auto import config_for

            chosen = config_for(changes, run_dir, dry_run=dry_run)
            if chosen is None:
                return
            config = chosen
        else:
            config = override(config, changes)
        if dry_run:
            out.print(to_text(config), markup=False, end="")
            return
        from equipoise.compute.distributed import processes, rank
        from equipoise.train import train as run

        events = trackers(track or ())
        with processes(config.compute.device):
            run(config, run_dir, events)
            if rank() == 0:
                needed = f" --recipe {shlex.quote(own or recipe)}" if known.keys() - components().keys() else ""
                then = f"equipoise sample {pasted(run_dir)}{needed} --out samples.png"
                err.print(f"done: {run_dir}. Next: {then}", markup=False)


def trackers(texts: Iterable[str]) -> list[Event]:
    """The trackers that --track names. Raises ValueError for other text, or a package that is not installed."""
    if not texts:
        return []
    from equipoise.track import tracker

    return [tracker(text) for text in texts]
