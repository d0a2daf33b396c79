"""The command line. Every command is a thin call into the library, imported when the command runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from equipoise.compute.terminal import survive

from . import data, doctor, evaluate, generate, lab, models, train, view
from .options import out

__all__ = ["app"]


class App(typer.Typer):
    """A command line that outlives its terminal."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        survive()
        if sys.platform == "darwin":  # torch reads it when it is imported
            os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # the CPU computes what Apple's GPUs lack
        return super().__call__(*args, **kwargs)


class Commands(TyperGroup):
    """Commands that refuse an empty argument: "" would name the working directory."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:
            ctx.fail("an argument is empty: give a value, or leave the argument out. Is a shell variable unset?")
        return super().parse_args(ctx, args)


app = App(
    name="equipoise",
    cls=Commands,
    help="Train GANs that converge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def say_version(asked: bool) -> None:
    if asked:
        from equipoise import __version__

        out.print(f"equipoise {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=say_version, is_eager=True)
    ] = False,
) -> None:
    """Train GANs that converge."""


data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.command()(train.recipes)
app.command(cls=train.Train)(train.train)
for command in (
    generate.sample,
    generate.export,
    generate.push,
    generate.interpolate,
    generate.arithmetic,
    generate.mix,
    generate.walk,
    view.show,
    view.report,
    doctor.doctor,
    evaluate.sweep,
    evaluate.compare,
    evaluate.evaluate,
    lab.lab,
    models.models,
):
    app.command()(command)
app.command("import")(generate.import_published)
data_app.command()(data.prepare)
