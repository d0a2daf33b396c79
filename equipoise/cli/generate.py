"""The commands `sample`, `export`, `import`, `interpolate` and `arithmetic`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import OwnRecipe, clear_errors, err, numbers, own_components, pasted

__all__ = ["arithmetic", "export", "import_published", "interpolate", "sample"]


def sample(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    num: Annotated[int, typer.Option(help="Number of images.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal images.", min=0)] = 0,
    out_path: Annotated[
        Path, typer.Option("--out", help="NAME.png: a grid; NAME.npz: arrays x and y; else a folder of PNGs.")
    ] = Path("samples.png"),
    classes: Annotated[Optional[str], typer.Option(help="Class ids used in turn, such as 0,1,2; default all.")] = None,  # noqa: UP045
    truncation: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Draw every component of z within this distance of 0: better images, less variety."),
    ] = None,
    recipe: OwnRecipe = None,
) -> None:
    """Draw images from the averaged generator of a run."""
    with clear_errors():
        from equipoise.compute.distributed import processes, rank
        from equipoise.generate import Generator, truncated, write_samples

        chosen = None if classes is None else numbers(classes, "--classes", "ids")
        with processes():
            generator = Generator.from_pretrained(run_dir, own_components(recipe))
            if truncation is not None:
                generator = truncated(generator, truncation)
            write_samples(generator, out_path, num=num, seed=seed, classes=chosen)
            if rank() == 0:
                err.print(f"wrote {out_path}", markup=False)


def export(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint, or its best/.")],
    to: Annotated[str, typer.Option(help="safetensors, onnx, pt2 (torch.export) or hub-folder.")],
    out_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out", help="File to write, or folder for hub-folder; default: generator.onnx and so on, or hub-folder."
        ),
    ] = None,
    truncation: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="As in `equipoise sample`: batch norms are made for z within this distance of 0."),
    ] = None,
    recipe: OwnRecipe = None,
) -> None:
    """Write the averaged generator of a run for other programs, or as a folder to publish."""
    with clear_errors():
        from equipoise.generate import export as write

        made = write(run_dir, to, out_path, truncation=truncation, known=own_components(recipe))
        err.print(f"wrote {made}", markup=False)


def import_published(
    network: Annotated[Path, typer.Argument(metavar="NETWORK.pkl", help="A file of StyleGAN2, 2-ADA or 3.")],
    run_dir: Annotated[Path, typer.Argument(help="Folder of the run to make.")],
) -> None:
    """Make a run from networks that others published. Nothing in their file is executed."""
    with clear_errors():
        from equipoise.generate import import_published as make

        made = make(network, run_dir)
        place = pasted(run_dir)
        lines = [f"wrote {run_dir}. The licence of the weights: {run_dir / 'NOTICE.txt'}"]
        if made.ignored:
            lines.append(f"left out: {', '.join(made.ignored)}")
        if made.augment_p is not None:
            lines.append(f"strength of the augmentation when it was saved: {made.augment_p:g}; it starts afresh")
        lines.append(f"Next: equipoise sample {place} --out samples.png")
        if made.complete:
            start = shlex.quote(f"start=Transfer(run={json.dumps(str(run_dir), ensure_ascii=False)})")
            config = pasted(run_dir / "config.txt")
            lines.append(f"Train further: equipoise train {config} RUN data=IMAGES {start}")
        else:
            lines.append("The file lacks G or D, so no other run can start from this one.")
        err.print("\n".join(lines), markup=False)


def interpolate(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    start: Annotated[
        str,
        typer.Option("--from", metavar="SEED/INDEX", help="First image: an image of `equipoise sample --seed SEED`."),
    ],
    end: Annotated[str, typer.Option("--to", metavar="SEED/INDEX", help="Last image, given likewise.")],
    frames: Annotated[int, typer.Option(help="Number of images, both ends among them.", min=2)] = 10,
    path: Annotated[Optional[str], typer.Option(help="spherical or linear; default: the prior's path.")] = None,  # noqa: UP045
    classes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FROM,TO", help="Classes of the two ends, such as 3,8; default: the images' own classes."),
    ] = None,
    truncation: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="As in `equipoise sample`."),
    ] = None,
    out_path: Annotated[
        Path, typer.Option("--out", help="NAME.png: a strip; NAME.gif; NAME.mp4, if ffmpeg is installed.")
    ] = Path("interpolation.png"),
    fps: Annotated[float, typer.Option(help="Frames per second of NAME.gif and NAME.mp4.", min=1, max=100)] = 20,
    recipe: OwnRecipe = None,
) -> None:
    """Interpolate between two images of a run, step by step."""
    with clear_errors():
        from equipoise.generate import Generator, latent, require_writable, truncated, write_frames
        from equipoise.generate import interpolate as walk

        require_writable(out_path)
        generator = Generator.from_pretrained(run_dir, own_components(recipe))
        if truncation is not None:
            generator = truncated(generator, truncation)
        labels: list[int] | list[None] = [None, None] if classes is None else numbers(classes, "--classes", "ids", 2)
        first, last = (
            latent(generator, index, seed=seed, label=label)
            for option, text, label in zip(("--from", "--to"), (start, end), labels, strict=True)
            for seed, index in [numbers(text, option, "a seed and an index", 2, "/")]
        )
        write_frames(walk(generator, first, last, frames, path=path), out_path, fps=fps)
        err.print(f"wrote {out_path}", markup=False)


def arithmetic(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    plus: Annotated[
        list[str],
        typer.Option(metavar="I,J,...", help="Indices of images whose mean z is added; repeat it for another group."),
    ],
    minus: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="I,J,...", help="Indices of images whose mean z is subtracted; may be repeated too."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the images, as in `equipoise sample --seed`.", min=0)] = 0,
    label: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--class", help="Class of the result; default: the class of the first image added."),
    ] = None,
    noise: Annotated[
        float, typer.Option(help="Neighbours of the result are within this distance in every component of z.", min=0)
    ] = 0.25,
    out_path: Annotated[Path, typer.Option("--out", help="The grid.", metavar="NAME.png")] = Path("arithmetic.png"),
    recipe: OwnRecipe = None,
) -> None:
    """Add and subtract the mean z of groups of images: a row per group, then the result after its neighbours."""
    with clear_errors():
        from equipoise.generate import Generator, arithmetic_grid, write_grid

        added, subtracted = (
            [numbers(text, option, "indices of images") for text in given or ()]
            for option, given in (("--plus", plus), ("--minus", minus))
        )
        generator = Generator.from_pretrained(run_dir, own_components(recipe))
        made, columns = arithmetic_grid(generator, added, subtracted, seed=seed, label=label, noise=noise)
        write_grid(made, columns, out_path)
        err.print(f"wrote {out_path}", markup=False)
