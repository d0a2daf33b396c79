"""The command line: every command is a thin call into the library, which it imports when it runs."""

from __future__ import annotations

import json
import shlex
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from rich.console import Console
from typer.core import TyperGroup

from equipoise.compute.terminal import survive

__all__ = ["app"]


class App(typer.Typer):
    """A command line that outlives its terminal."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        survive()
        return super().__call__(*args, **kwargs)


class Commands(TyperGroup):
    """Commands none of whose arguments is empty: "" would name the working directory."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:
            ctx.fail("an argument is empty: give a text, or leave it out. Is a variable of the shell unset?")
        return super().parse_args(ctx, args)


app = App(
    name="equipoise",
    cls=Commands,
    help="Train GANs that converge.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

OwnRecipe = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--recipe", help="FILE.py:FUNCTION, if the run was trained from a file of your own."),
]
OwnFeatures = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="The feature network, as in `equipoise evaluate`; default digits for digits, else inception."),
]
Weights = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="The file of its weights, if it is not in the cache."),
]

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Says what the user can mend in one message, without a traceback."""
    from equipoise.compute.interrupt import Interrupted

    try:
        yield
    except Interrupted as stop:
        say(str(stop))
        raise typer.Exit(128 + stop.signal) from None
    except Exception as error:
        from equipoise.core.types import RunError
        from equipoise.train.memory import out_of_memory

        if isinstance(error, ValueError | RunError) and raised_here(error):
            message = str(error)
        elif out_of_memory(error):
            message = "out of memory: ask for less at a time, such as fewer images or a smaller batch"
        elif isinstance(error, OSError):
            message = str(error)
        else:
            raise  # a bug in somebody's network or recipe: its traceback says more than a line
        say(message, error=True)
        raise typer.Exit(2 if isinstance(error, ValueError) else 1) from None


def say(message: str, *, error: bool = False) -> None:
    """On stderr; of several processes the first does."""
    from equipoise.compute.distributed import speaks

    if speaks():
        if error:
            err.print("[bold red]error:[/] ", end="")
        err.print(message, markup=False)


def pasted(path: Path) -> str:
    """`path` as an argument in a shell, where it is no option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def raised_here(error: BaseException) -> bool:
    """Whether this package raised it, and so wrote its message for the user."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return Path(last.filename).is_relative_to(Path(__file__).parents[1])


def assignments(items: Iterable[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """What ``key=value`` arguments say, by key. Raises ValueError for one that is no assignment."""
    from equipoise.core.grammar import parse
    from equipoise.core.nesting import shown

    changes = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"{shown(item)} is no override: give KEY=VALUE, such as loss=Hinge or d_optim.lr=4e-4")
        changes[key] = parse(text, known)
    return changes


def numbers(text: str, option: str, what: str, count: int | None = None, separator: str = ",") -> list[int]:
    """The whole numbers, from 0 on, that an option lists. Raises ValueError if it does not, or not `count` of them."""
    parts = text.split(separator)
    if not all(part.strip().isdecimal() for part in parts) or count not in (None, len(parts)):
        example = separator.join(map(str, range(count or 3)))
        between = "commas" if separator == "," else separator
        raise ValueError(f"{option} takes {what} separated by {between}, such as {example}; got {text!r}")
    return [int(part) for part in parts]


def own_components(recipe: str | None) -> Mapping[str, Any] | None:
    """What configs of a user's own file may call; None without one."""
    from equipoise import recipes as library

    return library.load(recipe)[1] if recipe else None


@app.command()
def recipes() -> None:
    """List the recipes, a line each."""
    from rich.table import Table

    from equipoise.recipes import available

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
        from equipoise import recipes as library
        from equipoise.config import override, to_text

        config, known = library.load(recipe)
        config = override(config, assignments(overrides or (), known))
        if dry_run:
            out.print(to_text(config), markup=False, end="")
            return
        from equipoise.compute.distributed import processes, rank
        from equipoise.train import train as run

        with processes():
            run(config, run_dir)
            if rank() == 0:
                own = f" --recipe {shlex.quote(recipe)}" if ".py" in recipe else ""
                then = f"equipoise sample {pasted(run_dir)}{own} --out samples.png"
                err.print(f"done: {run_dir}. Next: {then}", markup=False)


@app.command()
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
        typer.Option(help="Draw every component of z within this distance of 0: fewer kinds of images, better ones."),
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


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint, or its best/.")],
    to: Annotated[str, typer.Option(help="safetensors, onnx, pt2 (torch.export) or hub-folder.")],
    out_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--out", help="The file or, for hub-folder, the folder to make; default generator.onnx and so on."
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


@app.command()
def interpolate(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar="SEED/INDEX", help="Where to start: an image of `equipoise sample --seed SEED`."
        ),
    ],
    end: Annotated[str, typer.Option("--to", metavar="SEED/INDEX", help="Where to end.")],
    frames: Annotated[int, typer.Option(help="Number of images, both ends among them.", min=2)] = 10,
    path: Annotated[Optional[str], typer.Option(help="spherical or linear; default that of the prior.")] = None,  # noqa: UP045
    classes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="FROM,TO", help="Classes of the two ends, such as 3,8; default those of the images."),
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
    """Go from one image of a run to another, step by step."""
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


@app.command()
def arithmetic(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    plus: Annotated[
        list[str],
        typer.Option(metavar="I,J,...", help="Images, whose mean z is added; may be given again for other images."),
    ],
    minus: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="I,J,...", help="Images, whose mean z is subtracted; likewise."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The images are those of `equipoise sample --seed`.", min=0)] = 0,
    label: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--class", help="Class of the result; default that of the first image added."),
    ] = None,
    noise: Annotated[float, typer.Option(help="How far neighbours of the result are from it.", min=0)] = 0.25,
    out_path: Annotated[Path, typer.Option("--out", metavar="NAME.png")] = Path("arithmetic.png"),
    recipe: OwnRecipe = None,
) -> None:
    """Add and subtract the mean z of images: a row for each of the means, then neighbours and the result."""
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


@app.command()
def sweep(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    truncation: Annotated[str, typer.Option(help="LOW:HIGH, or thresholds separated by commas.")] = "0.2:2.0",
    steps: Annotated[int, typer.Option(help="Thresholds from LOW to HIGH.", min=2)] = 10,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Data to compare with, as in `equipoise evaluate`; default what the run was trained on."),
    ] = None,
    metrics: Annotated[str, typer.Option(help="As in `equipoise evaluate`.")] = "frechet,pr,classes",
    num: Annotated[int, typer.Option(help="Images that are measured at each threshold.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    features: OwnFeatures = None,
    weights: Weights = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Where figures, numbers and grids go.")] = Path("sweep"),
    recipe: OwnRecipe = None,
) -> None:
    """Measure quality against diversity over thresholds of truncation: curves, numbers and grids."""
    with clear_errors():
        from equipoise.core import plots  # noqa: F401  (says before the work that matplotlib is missing)
        from equipoise.evaluate import Evaluator, open_source, thresholds, tradeoff_table, write_sweep
        from equipoise.evaluate import sweep as measure
        from equipoise.generate import Generator
        from equipoise.runs import own_features, read_run

        known, values = own_components(recipe), thresholds(truncation, steps)
        config, generator = read_run(run_dir, known).config, Generator.from_pretrained(run_dir, known)
        evaluator = Evaluator(
            open_source(against or config.data, known),
            metrics=metrics,
            num=num,
            seed=seed,
            features=features or own_features(config),
            weights=weights,
            progress=True,
        )
        found = measure(generator, evaluator, [*values, None], name=str(run_dir))
        files = write_sweep(found, out_dir)
        out.print(tradeoff_table(found), soft_wrap=False)
        err.print("wrote " + ", ".join(map(str, files)), markup=False)


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Two runs or more.")],
    metrics: Annotated[
        str, typer.Option(help="As in `equipoise evaluate`, against the data of each run; none measures nothing.")
    ] = "frechet,pr,classes",
    num: Annotated[int, typer.Option(help="Images that are measured of each run.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    features: OwnFeatures = None,
    weights: Weights = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Where figures and numbers go.")] = Path("compare"),
    recipe: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="FILE.py:FUNCTION, if a run was trained from a file of your own; may be given again."),
    ] = None,
) -> None:
    """Lay runs side by side: in what they differ, how they went, how good they are; curves and grids."""
    with clear_errors():
        from equipoise.core import plots  # noqa: F401  (says before the work that matplotlib is missing)
        from equipoise.evaluate import compare as measure
        from equipoise.evaluate import compare_table, write_compared

        known = {name: value for own in recipe or () for name, value in (own_components(own) or {}).items()}
        found = measure(
            run_dirs,
            metrics=None if metrics == "none" else metrics,
            num=num,
            seed=seed,
            features=features,
            weights=weights,
            known=known or None,
            progress=True,
        )
        files = write_compared(found, out_dir)
        out.print(compare_table(found), soft_wrap=False)
        err.print("wrote " + ", ".join(map(str, files)), markup=False)


@app.command()
def evaluate(
    images: Annotated[
        str, typer.Argument(metavar="RUN_OR_IMAGES", help="A run, a folder of images, a .zip or an .npz.")
    ],
    against: Annotated[
        str,
        typer.Option(help="What to compare with: any of these, or a data set, such as Digits or 'Images(path=\"F\")'."),
    ],
    metrics: Annotated[
        str,
        typer.Option(
            help="Some of frechet, fid, kid, is, pr, dc, swd, parzen, nearest, classes, modes; of runs probe, critic; "
            "with settings, as in kid(subsets=50)."
        ),
    ] = "fid,kid,pr",
    num: Annotated[int, typer.Option(help="How many images are measured.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    features: Annotated[
        str, typer.Option(help="The feature network: inception, efficientnet_lite0, digits or FILE.py:NAME.")
    ] = "inception",
    weights: Weights = None,
    out_path: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", metavar="FILE.json", help="Write the numbers with every setting."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 250,
    recipe: OwnRecipe = None,
) -> None:
    """Measure generated images against real ones: a table, and a JSON file with every setting."""
    with clear_errors():
        from equipoise.compute.distributed import processes, rank
        from equipoise.core.files import replace_file, writing
        from equipoise.evaluate import evaluate as measure

        with processes() as device:
            found = measure(
                images,
                against,
                metrics=metrics,
                num=num,
                seed=seed,
                features=features,
                weights=weights,
                device=device,
                batch_size=batch,
                known=own_components(recipe),
                progress=True,
            )
            if rank() > 0:
                return
            out.print(found.table(), soft_wrap=False)
            if out_path is not None:
                with writing(out_path):
                    out_path.parent.mkdir(parents=True, exist_ok=True)
                    replace_file(out_path, found.json().encode())
                err.print(f"wrote {out_path}", markup=False)


@app.command()
def lab(
    name: Annotated[Optional[str], typer.Argument(help="An experiment, or all; without one they are listed.")] = None,  # noqa: UP045
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change: seed=1."),
    ] = None,
    out_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", help="Where figures and numbers go; default lab."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Of ring, grid, swiss_roll: ten settings side by side, with seeds.")
    ] = False,
    host: Annotated[Optional[str], typer.Option(help="Of the playground; by default this machine alone.")] = None,  # noqa: UP045
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Of the playground; 0 takes one that is free.", min=0, max=65535),
    ] = None,
) -> None:
    """Run an experiment on the theory of GANs: a figure, its numbers and a table; or serve the playground."""
    from rich.table import Table

    from equipoise.lab import COMPARING, PLAYGROUND, available, load

    known = available()
    listing = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    if name is None:
        for experiment, line in known.items():
            listing.add_row(f"[bold]{experiment}[/]", line)
        listing.add_row("[bold]playground[/]", PLAYGROUND)
        out.print(listing)
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
            raise ValueError(f"{name} is no server: --host and --port belong to `equipoise lab playground`")
        if name == "all" and overrides:
            raise ValueError(f"settings belong to one experiment: name it in place of all, to change {overrides[0]!r}")
        for experiment in known if name == "all" else (name,):
            from equipoise.config import components, override
            from equipoise.lab.base import carry_out
            from equipoise.lab.progress import shown

            changes = assignments(overrides or (), components()) | ({"compare": True} if compare else {})
            settings = override(load(experiment)(), changes)
            compares = experiment in COMPARING and settings.compare
            with shown(err, experiment):
                found, files = carry_out(
                    settings, f"{experiment}_compare" if compares else experiment, out_dir or Path("lab")
                )
            table = Table(*found.columns, title=experiment, title_justify="left")
            for row in found.rows:
                table.add_row(*row)
            out.print(table, soft_wrap=False)
            err.print("wrote " + ", ".join(map(str, files)), markup=False)


@app.command()
def models(
    name: Annotated[Optional[str], typer.Argument(help="One of them; without one they are listed.")] = None,  # noqa: UP045
    overrides: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change: spec.resolution=256 generator.width=64."),
    ] = None,
    depth: Annotated[int, typer.Option(help="How many modules deep the picture goes.", min=0)] = 3,
) -> None:
    """Published networks: parameters, multiply-adds an image, memory; or the blocks of one of them."""
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


@data_app.command()
def prepare(
    source: Annotated[
        str, typer.Argument(help="A folder, zip, .npz or IDX directory, or: digits, mnist, fashion_mnist, cifar10.")
    ],
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="The directory to make.")],
    resolution: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Crop to a square and resize to so many pixels.", min=1),
    ] = None,
    channels: Annotated[Optional[int], typer.Option(help="1: grey, 3: colour; default as the source.")] = None,  # noqa: UP045
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Processes that decode image files; default one per processor core.", min=1),
    ] = None,
    shard_gb: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="The most gigabytes of a file of images; default all in one file."),
    ] = None,
) -> None:
    """Turn images into a set on disk that opens at once: train with 'data=Images(path="OUT")'."""
    with clear_errors():
        from equipoise.data import prepare as make
        from equipoise.data.workers import cores

        make(source, out_dir, resolution=resolution, channels=channels, workers=workers or cores(), shard_gb=shard_gb)
        data = shlex.quote(f"data=Images(path={json.dumps(str(out_dir), ensure_ascii=False)})")
        err.print(f"wrote {out_dir}. Train with: {data}", markup=False)
