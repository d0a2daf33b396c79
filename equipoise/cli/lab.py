"""The command `lab`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import assignments, clear_errors, err, out

__all__ = ["lab"]


def lab(
    name: Annotated[Optional[str], typer.Argument(help="An experiment, or all; without a name, list them.")] = None,  # noqa: UP045
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: seed=1."),
    ] = None,
    out_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Folder for figures and numbers; default: lab."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="For ring, grid, swiss_roll: compare ten settings over several seeds.")
    ] = False,
    host: Annotated[Optional[str], typer.Option(help="Host of the playground; default: this machine alone.")] = None,  # noqa: UP045
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Port of the playground; 0 takes a free port.", min=0, max=65535),
    ] = None,
) -> None:
    """Run an experiment on the theory of GANs: a figure, its numbers and a table; or serve the playground."""
    from equipoise.lab import COMPARING, available

    if name is None:
        list_experiments()
        return
    with clear_errors():
        if compare and name not in COMPARING:
            raise ValueError(f"{name} compares no settings: --compare is for {', '.join(COMPARING)}")
        if name == "playground":
            if out_dir is not None:
                raise ValueError("the playground writes no files: --out belongs to experiments")
            from equipoise.lab.playground.server import serve

            serve(host, port, overrides or (), announce=lambda text: out.print(text, markup=False))
            return
        if host is not None or port is not None:
            raise ValueError(f"{name} runs without a server: --host and --port belong to `equipoise lab playground`")
        if name == "all" and overrides:
            raise ValueError(f"settings belong to one experiment: name it instead of all to change {overrides[0]!r}")
        for experiment in available() if name == "all" else (name,):
            carry_out(experiment, overrides or (), compare, out_dir or Path("lab"))


def list_experiments() -> None:
    from rich.table import Table

    from equipoise.lab import PLAYGROUND, available

    listing = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for experiment, line in available().items():
        listing.add_row(f"[bold]{experiment}[/]", line)
    listing.add_row("[bold]playground[/]", PLAYGROUND)
    out.print(listing)


def carry_out(experiment: str, overrides: Iterable[str], compare: bool, folder: Path) -> None:
    """Run one experiment: its table on the screen, its files in `folder`."""
    from rich.table import Table

    from equipoise.config import components, override
    from equipoise.lab import COMPARING, base, load
    from equipoise.lab.progress import shown

    changes = assignments(overrides, components()) | ({"compare": True} if compare else {})
    settings = override(load(experiment)(), changes)
    compares = experiment in COMPARING and settings.compare
    with shown(err, experiment):
        results, files = base.carry_out(settings, f"{experiment}_compare" if compares else experiment, folder)
    table = Table(*results.columns, title=experiment, title_justify="left")
    for row in results.rows:
        table.add_row(*row)
    out.print(table, soft_wrap=False)
    err.print("wrote " + ", ".join(map(str, files)), markup=False)
