"""The commands `sample`, `export`, `push`, `import`, `interpolate`, `arithmetic`, `mix` and `walk`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from .options import OwnRecipe, clear_errors, err, numbers, own_components, pasted, ranges

if TYPE_CHECKING:
    from equipoise.generate import Generator

__all__ = ["arithmetic", "export", "import_published", "interpolate", "mix", "push", "sample", "walk"]

Psi = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Styles w_avg + psi (w - w_avg): 1 changes nothing, 0 is the average image. For StyleGANs."),
]
Cutoff = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Layers, from the coarsest, that --truncation-psi is for; default: all.", min=1),
]
Truncation = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="As in `equipoise sample`."),
]
BothNetworks = Annotated[
    bool,
    typer.Option(
        "--with-discriminator",
        help="Add G, D and the average of G, which other runs start from: start=Transfer(run=FOLDER).",
    ),
]


def opened(
    run_dir: Path, recipe: str | None, truncation: float | None, psi: float | None, cutoff: int | None
) -> Generator:
    """The generator of a run, truncated in z and in w as asked."""
    from equipoise.generate import Generator, truncated, truncated_in_w

    if cutoff is not None and psi is None:
        raise ValueError(f"--cutoff {cutoff} is for --truncation-psi: give both, such as --truncation-psi 0.7")
    generator = Generator.from_pretrained(run_dir, own_components(recipe))
    if truncation is not None:
        generator = truncated(generator, truncation)
    return generator if psi is None else truncated_in_w(generator, psi, cutoff)


def sample(
    run_dir: Annotated[
        Path, typer.Argument(help="A run that has reached its first checkpoint, an export, or YOU/NAME on the Hub.")
    ],
    num: Annotated[Optional[int], typer.Option(help="Number of images; default 100.", min=1)] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Equal seeds draw equal images; default 0.", min=0)] = None,  # noqa: UP045
    out_path: Annotated[
        Path, typer.Option("--out", help="NAME.png: a grid; NAME.npz: arrays x and y; else a folder of PNGs.")
    ] = Path("samples.png"),
    classes: Annotated[Optional[str], typer.Option(help="Class ids used in turn, such as 0,1,2; default all.")] = None,  # noqa: UP045
    truncation: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Draw every component of z within this distance of 0: better images, less variety."),
    ] = None,
    truncation_psi: Psi = None,
    cutoff: Cutoff = None,
    latents: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.npz", help="Draw the images of these latents, in place of seeds."),
    ] = None,
    save_latents: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.npz", help="Write the latents of the images too."),
    ] = None,
    space: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Latents to write: z, the default; w, a style per image; ws, a style per layer and image."),
    ] = None,
    recipe: OwnRecipe = None,
) -> None:
    """Draw images from the averaged generator of a run."""
    with clear_errors():
        from equipoise.compute.distributed import processes, rank
        from equipoise.generate import write_samples

        chosen = None if classes is None else numbers(classes, "--classes", "ids")
        if latents is not None and (num, seed, chosen, truncation) != (None, None, None, None):
            raise ValueError(f"{latents} says what to draw: leave --num, --seed, --classes and --truncation out")
        if space is not None and save_latents is None:
            raise ValueError(f"--space {space} is for the latents of --save-latents FILE.npz: give both")
        with processes():
            generator = opened(run_dir, recipe, truncation, truncation_psi, cutoff)
            if latents is None and save_latents is None:
                write_samples(generator, out_path, num=num or 100, seed=seed or 0, classes=chosen)
                made = [out_path]
            else:
                made = draw_latents(
                    generator, out_path, latents, save_latents, num or 100, seed or 0, chosen, space or "z"
                )
            if rank() == 0:
                err.print("wrote " + ", ".join(map(str, made)), markup=False)


def draw_latents(
    generator: Generator,
    out_path: Path,
    given: Path | None,
    kept: Path | None,
    num: int,
    seed: int,
    classes: list[int] | None,
    space: str,
) -> list[Path]:
    """Images of given latents, or of latents that are written as well -> the files that were written."""
    from equipoise.compute.distributed import from_rank_0
    from equipoise.generate import latents_of, load_latents, save_latents, write_latents

    if given is not None and kept is not None:
        raise ValueError(f"--save-latents {kept} would write what --latents {given} holds: give one of them")
    if given is not None:
        return [write_latents(generator, load_latents(given, generator), out_path)]
    assert kept is not None
    chosen = latents_of(generator, num, seed=seed, classes=classes, kind=space)  # type: ignore[arg-type]
    from_rank_0(lambda: save_latents(chosen, kept))
    return [write_latents(generator, chosen, out_path), kept]


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
    with_discriminator: BothNetworks = False,
    recipe: OwnRecipe = None,
) -> None:
    """Write the averaged generator of a run for other programs, or as a folder to publish."""
    with clear_errors():
        from equipoise.generate import export as write

        known = own_components(recipe)
        made = write(run_dir, to, out_path, truncation=truncation, with_discriminator=with_discriminator, known=known)
        err.print(f"wrote {made}", markup=False)


def push(
    run_dir: Annotated[Path, typer.Argument(help="A run, its best/, or a folder of `equipoise export`.")],
    name: Annotated[str, typer.Argument(metavar="YOU/NAME", help="Repository on the Hub; it is made if needed.")],
    private: Annotated[
        bool, typer.Option("--private", help="Only you may see it. A public repository of that name is refused.")
    ] = False,
    with_discriminator: BothNetworks = False,
    licence: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--licence", "--license", help="Licence for the model card, such as apache-2.0, if you choose one."
        ),
    ] = None,
    truncation: Truncation = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and upload nothing.")] = False,
    recipe: OwnRecipe = None,
) -> None:
    """Publish the averaged generator of a run on the Hugging Face Hub, with a model card."""
    with clear_errors():
        from equipoise.generate import push as publish

        done = publish(
            run_dir,
            name,
            private=private,
            with_discriminator=with_discriminator,
            truncation=truncation,
            licence=licence,
            known=own_components(recipe),
            dry_run=dry_run,
        )
        seen = "private" if private else "public, unless it is there and private"
        lines = [f"{'would push' if dry_run else 'pushed'} to {name} ({seen}):"]
        lines += [f"  {file}  {size:,} bytes" for file, size in done.files]
        if licence is None:
            lines.append("Without --licence the card names none, unless you have written one into it.")
        if done.address is None:
            lines.append(
                "config.txt and README.md name the data and the command: read them, they may name your folders."
            )
        else:
            lines += [done.address, f'Use: Generator.from_pretrained("{name}"), or equipoise sample {name}']
        err.print("\n".join(lines), markup=False)


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
    truncation: Truncation = None,
    out_path: Annotated[
        Path, typer.Option("--out", help="NAME.png: a strip; NAME.gif; NAME.webp; NAME.mp4, if ffmpeg is installed.")
    ] = Path("interpolation.png"),
    fps: Annotated[float, typer.Option(help="Frames per second of a film.", min=1, max=100)] = 20,
    recipe: OwnRecipe = None,
) -> None:
    """Interpolate between two images of a run, step by step."""
    with clear_errors():
        from equipoise.generate import interpolate as between
        from equipoise.generate import latent, require_writable, write_frames

        require_writable(out_path)
        generator = opened(run_dir, recipe, truncation, None, None)
        labels: list[int] | list[None] = [None, None] if classes is None else numbers(classes, "--classes", "ids", 2)
        first, last = (
            latent(generator, index, seed=seed, label=label)
            for option, text, label in zip(("--from", "--to"), (start, end), labels, strict=True)
            for seed, index in [numbers(text, option, "a seed and an index", 2, "/")]
        )
        write_frames(between(generator, first, last, frames, path=path), out_path, fps=fps)
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


def mix(
    run_dir: Annotated[Path, typer.Argument(help="A run of a StyleGAN that has reached its first checkpoint.")],
    rows: Annotated[str, typer.Option(metavar="I,J,...", help="Indices of the images that give --layers.")],
    columns: Annotated[str, typer.Option(metavar="I,J,...", help="Indices of the images that give all other layers.")],
    layers: Annotated[str, typer.Option(help="Layers from 0, the coarsest, such as 0-3,7.")] = "0-3",
    seed: Annotated[int, typer.Option(help="Seed of the images, as in `equipoise sample --seed`.", min=0)] = 0,
    label: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--class", help="Class of all images; default: their own."),
    ] = None,
    truncation_psi: Psi = None,
    cutoff: Cutoff = None,
    out_path: Annotated[Path, typer.Option("--out", metavar="NAME.png", help="The grid to write.")] = Path("mix.png"),
    recipe: OwnRecipe = None,
) -> None:
    """Mix styles: coarse layers of the images in the first column, all others of the images in the first row."""
    with clear_errors():
        from equipoise.generate import mixing_grid, write_grid

        left, top = (
            numbers(text, option, "indices of images") for text, option in ((rows, "--rows"), (columns, "--columns"))
        )
        which = ranges(layers, "--layers", "layers")
        generator = opened(run_dir, recipe, None, truncation_psi, cutoff)
        made, width = mixing_grid(generator, left, top, which, seed=seed, label=label)
        write_grid(made, width, out_path)
        err.print(f"wrote {out_path}", markup=False)


def walk(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    images: Annotated[str, typer.Option(metavar="I,J,...", help="Indices of images to go through, and ranges: 0-7.")],
    seed: Annotated[int, typer.Option(help="Seed of the images, as in `equipoise sample --seed`.", min=0)] = 0,
    frames: Annotated[int, typer.Option(help="Frames from one image to the next.", min=1)] = 30,
    space: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="z, or w, the styles of a StyleGAN; default: w where there is one."),
    ] = None,
    path: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="cubic: a smooth curve, default in w; eased: straight, with rests, default in z."),
    ] = None,
    classes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Classes of the images in turn, such as 3,8; default: their own."),
    ] = None,
    truncation: Truncation = None,
    truncation_psi: Psi = None,
    cutoff: Cutoff = None,
    out_path: Annotated[
        Path, typer.Option("--out", help="NAME.webp, NAME.gif, NAME.png (a strip); NAME.mp4, if ffmpeg is installed.")
    ] = Path("walk.webp"),
    fps: Annotated[float, typer.Option(help="Frames per second of a film.", min=1, max=100)] = 30,
    recipe: OwnRecipe = None,
) -> None:
    """Walk in a closed loop through images of a run, as a film."""
    with clear_errors():
        from equipoise.generate import closed_loop, latent, require_writable, write_frames

        require_writable(out_path)
        indices = ranges(images, "--images", "indices of images")
        generator = opened(run_dir, recipe, truncation, truncation_psi, cutoff)
        labels: list[int] | list[None] = [None] if classes is None else numbers(classes, "--classes", "ids")
        if len(labels) > len(indices):
            raise ValueError(
                f"--classes gives {len(labels)} classes, and --images {len(indices)} images: give at most one for each"
            )
        points = [latent(generator, index, seed=seed, label=labels[k % len(labels)]) for k, index in enumerate(indices)]
        film = closed_loop(generator, points, frames, space=space, path=path)  # type: ignore[arg-type]
        write_frames(film, out_path, fps=fps)
        err.print(f"wrote {out_path}", markup=False)
