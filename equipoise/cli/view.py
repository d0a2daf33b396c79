"""The commands `show` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import OwnRecipe, clear_errors, err, out, own_components

__all__ = ["report", "show"]


def show(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint, its best/, an export.")],
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Port of the page; 0 takes a free port; default: 8422.", min=0, max=65535),
    ] = None,
    host: Annotated[Optional[str], typer.Option(help="Host of the page; default: this machine alone.")] = None,  # noqa: UP045
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser, where there is a desktop.")
    ] = True,
    recipe: OwnRecipe = None,
) -> None:
    """Show a run's images in the browser: by seed and class, truncated, between two images, with mixed styles."""
    with clear_errors():
        from equipoise.view.server import serve

        known = own_components(recipe)
        announce = lambda text: out.print(text, markup=False)  # noqa: E731
        serve(run_dir, host, port, announce, known=known, browser=browser)


def report(
    run_dir: Annotated[Path, typer.Argument(help="A run, finished or not.")],
    out_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="FILE.html", help="File to write; default: report.html in the run."),
    ] = None,
    recipe: OwnRecipe = None,
) -> None:
    """Write a report of a run, one HTML file: settings, curves, grids, numbers and warnings."""
    with clear_errors():
        from equipoise.view import write_report

        written = write_report(run_dir, out_path, own_components(recipe))
        err.print(f"wrote {written}", markup=False)
