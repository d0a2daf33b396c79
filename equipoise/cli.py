"""The command line: every command is a thin call into the library, which it imports when it runs."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console

__all__ = ["app"]

app = typer.Typer(
    name="equipoise",
    help="Train GANs that converge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Says what the user can mend in one message, without a traceback."""
    from .interrupt import Interrupted
    from .types import RunError

    try:
        yield
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            err.print(str(stop), markup=False)
        raise typer.Exit(128 + stop.signal) from None
    except (ValueError, RunError, OSError) as error:
        if not (isinstance(error, OSError) or raised_here(error)):
            raise  # a bug in somebody's network or recipe: its traceback says more than a line
        if os.environ.get("RANK", "0") == "0":
            err.print("[bold red]error:[/] ", end="")
            err.print(str(error), markup=False)
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from None


def raised_here(error: BaseException) -> bool:
    """Whether this package raised it, and so wrote its message for the user."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(__file__).parent)


def assignments(items: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """What ``key=value`` arguments say, by key. Raises ValueError for one that is no assignment."""
    from .config import parse

    changes = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} is no override: give KEY=VALUE, such as loss=Hinge or d_optim.lr=4e-4")
        changes[key] = parse(text, known)
    return changes


@app.command()
def recipes() -> None:
    """List the recipes, a line each."""
    from rich.table import Table

    from .recipes import available

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, (_, line) in available().items():
        table.add_row(f"[bold]{name}[/]", line)
    out.print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name from `equipoise recipes`, or FILE.py:FUNCTION.")],
    run_dir: Annotated[Path, typer.Argument(help="Where everything of the run goes. The same command resumes.")],
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Fields to change: loss=Hinge d_optim.lr=4e-4 'penalties=[R1(gamma=5)]'."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Print the config and stop.")] = False,
) -> None:
    """Train a recipe; run the same command again to resume."""
    with clear_errors():
        from . import recipes as library
        from .config import override, to_text

        config, known = library.load(recipe)
        config = override(config, assignments(overrides or (), known))
        if dry_run:
            out.print(to_text(config), markup=False, end="")
            return
        from .distributed import processes, rank
        from .train import train as run

        with processes():
            run(config, run_dir)
            if rank() == 0:
                err.print(f"done: {run_dir}. Next: equipoise sample {run_dir} --out samples.png", markup=False)


@app.command()
def sample(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    num: Annotated[int, typer.Option(help="Number of images.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal images.", min=0)] = 0,
    out_path: Annotated[
        Path, typer.Option("--out", help="NAME.png: a grid; NAME.npz: arrays x and y; else a folder of PNGs.")
    ] = Path("samples.png"),
    classes: Annotated[Optional[str], typer.Option(help="Class ids used in turn, such as 0,1,2; default all.")] = None,  # noqa: UP045
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="FILE.py:FUNCTION, if the run was trained from a file of your own."),
    ] = None,
) -> None:
    """Draw images from the averaged generator of a run."""
    with clear_errors():
        from . import recipes as library
        from .sampling import load_generator, write_samples

        known = library.load(recipe)[1] if recipe else None
        chosen = None
        if classes is not None:
            try:
                chosen = [int(c) for c in classes.split(",")]
            except ValueError:
                raise ValueError(f"--classes takes ids separated by commas, such as 0,1,2; got {classes!r}") from None
        write_samples(load_generator(run_dir, known), out_path, num=num, seed=seed, classes=chosen)
        err.print(f"wrote {out_path}", markup=False)


@app.command()
def lab(
    name: Annotated[Optional[str], typer.Argument(help="An experiment, or all; without one they are listed.")] = None,  # noqa: UP045
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: seed=1."),
    ] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Where figures and numbers go.")] = Path("lab"),
) -> None:
    """Run an experiment on the theory of GANs: a figure, its numbers and a table."""
    from rich.table import Table

    from .lab import available, load

    known = available()
    listing = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    if name is None:
        for experiment, line in known.items():
            listing.add_row(f"[bold]{experiment}[/]", line)
        out.print(listing)
        return
    with clear_errors():
        if name == "all" and overrides:
            raise ValueError(f"settings belong to one experiment: name it in place of all, to change {overrides[0]!r}")
        for experiment in known if name == "all" else (name,):
            from .config import components, override
            from .lab.base import carry_out

            settings = override(load(experiment)(), assignments(overrides or (), components()))
            with err.status(f"{experiment} ..."):
                found, files = carry_out(settings, experiment, out_dir)
            table = Table(*found.columns, title=experiment, title_justify="left")
            for row in found.rows:
                table.add_row(*row)
            out.print(table, soft_wrap=False)
            err.print("wrote " + ", ".join(map(str, files)), markup=False)


@data_app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="A folder, zip, .npz or IDX directory, or: digits, mnist, fashion_mnist.")
    ],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to make.")],
    resolution: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Crop to a square and resize to so many pixels.", min=1),
    ] = None,
    channels: Annotated[Optional[int], typer.Option(help="1: grey, 3: colour; default as the source.")] = None,  # noqa: UP045
) -> None:
    """Turn images into a memory-mapped set that opens at once: train with 'data=Images(path="OUT")'."""
    with clear_errors():
        from .data import prepare as make

        make(source, out_dir, resolution=resolution, channels=channels)
        err.print(f"wrote {out_dir}. Train with: 'data=Images(path=\"{out_dir}\")'", markup=False)
