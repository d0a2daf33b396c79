"""The command `models`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from .options import assignments, clear_errors, out

__all__ = ["models"]


def models(
    name: Annotated[Optional[str], typer.Argument(help="A model; without a name, list them all.")] = None,  # noqa: UP045
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change: spec.resolution=256 generator.width=64."),
    ] = None,
    depth: Annotated[int, typer.Option(help="Depth of the picture, in nested modules.", min=0)] = 3,
) -> None:
    """List published networks: parameters, multiply-adds per image, memory. Given a name, draw its blocks."""
    with clear_errors():
        from equipoise.config import components, override
        from equipoise.core.grammar import suggest
        from equipoise.models.describe import listing, picture
        from equipoise.models.zoo import ZOO

        if name is None:
            out.print(listing(ZOO), soft_wrap=False)
            return
        if name not in ZOO:
            raise ValueError(f"there is no model {name!r}{suggest(name, ZOO)}")
        pair = override(ZOO[name], assignments(overrides or (), components()))
        for tree in picture(name, pair, depth):
            out.print(tree)
