"""The command `data prepare`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import clear_errors, err, one_of

__all__ = ["prepare"]


def prepare(
    source: Annotated[
        str,
        typer.Argument(help="A folder, zip, tar, .npz or IDX directory, or: digits, mnist, fashion_mnist, cifar10."),
    ],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to make.")],
    resolution: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Resize to this width and height, in pixels.", min=1),
    ] = None,
    shape: Annotated[
        Optional[tuple[int, int]],  # noqa: UP045
        typer.Option(help="Resize to rectangles: height and width, in pixels; in place of --resolution."),
    ] = None,
    channels: Annotated[Optional[int], typer.Option(help="1: grey, 3: colour; default: as in the source.")] = None,  # noqa: UP045
    fit: Annotated[
        str,
        typer.Option(help="How other proportions get this shape: crop (the centre), pad (black edges), stretch."),
    ] = "crop",
    labels: Annotated[
        str, typer.Option(help="auto: a table such as labels.csv, else sub-folders are classes; folders; none.")
    ] = "auto",
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out files that cannot be read; they are counted and named.")
    ] = False,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Processes that decode image files; default one per processor core.", min=1),
    ] = None,
    shard_gb: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Most gigabytes in one file of images; default: one file for all images."),
    ] = None,
) -> None:
    """Turn images into a set on disk that opens at once: train with 'data=Images(path="OUT")'.

    If it is stopped while image files are read, the same command continues.
    """
    with clear_errors():
        from equipoise.compute.cores import cores
        from equipoise.data import prepare as make

        make(
            source,
            out_dir,
            resolution=resolution,
            shape=shape,
            channels=channels,
            fit=one_of(fit, "--fit", "crop", "pad", "stretch"),
            labels=one_of(labels, "--labels", "auto", "folders", "none"),
            skip_broken=skip_broken,
            workers=workers or cores(),
            shard_gb=shard_gb,
        )
        data = shlex.quote(f"data=Images(path={json.dumps(str(out_dir), ensure_ascii=False)})")
        err.print(f"wrote {out_dir}. Train with: {data}", markup=False)
