"""The commands `evaluate`, `compare` and `sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from equipoise.core.listing import named

from .options import OwnFeatures, OwnRecipe, Weights, clear_errors, err, out, own_components

if TYPE_CHECKING:
    from equipoise.data import DatasetConfig

__all__ = ["compare", "evaluate", "sweep"]

LISTED = named("metrics")
OF_RUNS = [name for name, metric in LISTED.items() if "OfDiscriminator" in metric.bases]
OF_GENERATORS = [name for name, metric in LISTED.items() if "OfGenerator" in metric.bases]
OF_IMAGES = [name for name in LISTED if name not in (*OF_RUNS, *OF_GENERATORS)]


def sweep(
    run_dir: Annotated[Path, typer.Argument(help="A run that has reached its first checkpoint.")],
    truncation: Annotated[str, typer.Option(help="LOW:HIGH, or thresholds separated by commas.")] = "0.2:2.0",
    steps: Annotated[int, typer.Option(help="Thresholds from LOW to HIGH.", min=2)] = 10,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Data to compare with, as in `equipoise evaluate`; default: the run's training data."),
    ] = None,
    metrics: Annotated[str, typer.Option(help="As in `equipoise evaluate`.")] = "frechet,pr,classes",
    num: Annotated[int, typer.Option(help="Number of images measured at each threshold.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed for everything random.", min=0)] = 0,
    features: OwnFeatures = None,
    weights: Weights = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for figures, numbers and grids.")] = Path("sweep"),
    recipe: OwnRecipe = None,
) -> None:
    """Measure quality against diversity over truncation thresholds: curves, numbers and grids."""
    with clear_errors():
        from equipoise.core import plots  # noqa: F401  (fails before the work if matplotlib is missing)
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
        measured = measure(generator, evaluator, [*values, None], name=str(run_dir))
        files = write_sweep(measured, out_dir)
        out.print(tradeoff_table(measured), soft_wrap=False)
        err.print("wrote " + ", ".join(map(str, files)), markup=False)


def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Two runs or more.")],
    metrics: Annotated[
        str, typer.Option(help="As in `equipoise evaluate`, against each run's own data; none: measure nothing.")
    ] = "frechet,pr,classes",
    num: Annotated[int, typer.Option(help="Number of images measured of each run.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed for everything random.", min=0)] = 0,
    features: OwnFeatures = None,
    weights: Weights = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for figures and numbers.")] = Path("compare"),
    recipe: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="FILE.py:FUNCTION, if a run was trained from a file of your own; may be repeated."),
    ] = None,
) -> None:
    """Compare runs side by side: config differences, training curves, metrics and grids of images."""
    with clear_errors():
        from equipoise.core import plots  # noqa: F401  (fails before the work if matplotlib is missing)
        from equipoise.evaluate import compare as measure
        from equipoise.evaluate import compare_table, write_compared

        known = {name: value for file in recipe or () for name, value in (own_components(file) or {}).items()}
        compared = measure(
            run_dirs,
            metrics=None if metrics == "none" else metrics,
            num=num,
            seed=seed,
            features=features,
            weights=weights,
            known=known or None,
            progress=True,
        )
        files = write_compared(compared, out_dir)
        out.print(compare_table(compared), soft_wrap=False)
        err.print("wrote " + ", ".join(map(str, files)), markup=False)


def evaluate(
    images: Annotated[
        str, typer.Argument(metavar="RUN_OR_IMAGES", help="A run, a folder of images, a .zip or an .npz.")
    ],
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Images to compare with: a run, a folder, a .zip, an .npz, or a data set such as Digits or "
            "'Images(path=\"F\")'; default: the training data of the run."
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help=f"Any of {', '.join(OF_IMAGES)}; for runs also {', '.join(OF_RUNS)}; for generators also "
            f"{', '.join(OF_GENERATORS)}. Settings go in brackets: kid(subsets=50)."
        ),
    ] = "fid,kid,pr",
    num: Annotated[int, typer.Option(help="Number of images measured.", min=1)] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed for everything random.", min=0)] = 0,
    features: Annotated[
        str, typer.Option(help="Network: inception, efficientnet_lite0, digits, cells, colours or FILE.py:NAME.")
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

        known = own_components(recipe)
        with processes() as device:
            evaluation = measure(
                images,
                data_of_run(Path(images), known) if against is None else against,
                metrics=metrics,
                num=num,
                seed=seed,
                features=features,
                weights=weights,
                device=device,
                batch_size=batch,
                known=known,
                progress=True,
            )
            if rank() > 0:
                return
            out.print(evaluation.table(), soft_wrap=False)
            if out_path is not None:
                with writing(out_path):
                    out_path.parent.mkdir(parents=True, exist_ok=True)
                    replace_file(out_path, evaluation.json().encode())
                err.print(f"wrote {out_path}", markup=False)


def data_of_run(folder: Path, known: Mapping[str, Any] | None) -> DatasetConfig:
    """The training data of a run. Raises ValueError for other images."""
    from equipoise.runs import read_run

    if not (folder / "config.txt").exists():
        raise ValueError(f"{folder} is not a run, which says what it was trained on: give --against DATA")
    return read_run(folder, known).config.data
