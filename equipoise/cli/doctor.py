"""The command `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .options import OwnFeatures, OwnRecipe, Weights, assignments, clear_errors, err, out, own_components

if TYPE_CHECKING:
    from equipoise.config import TrainConfig
    from equipoise.doctor import Evidence
    from equipoise.runs import Run

__all__ = ["doctor"]


def doctor(
    words: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="RUN | KEY=VALUE", help="A run, finished or not; with --config, fields to change."),
    ] = None,
    config: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="RECIPE", help="Examine a recipe before it runs, as `equipoise train` takes it."),
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also draw images: recall, nearest training images, norms, content of data.")
    ] = False,
    num: Annotated[int, typer.Option(help="With --deep: number of images to draw.", min=10)] = 2000,
    features: OwnFeatures = None,
    weights: Weights = None,
    recipe: OwnRecipe = None,
) -> None:
    """Say what is wrong with a run or a config, why, and what to change: a table, with the command that tries it."""
    with clear_errors():
        from equipoise.doctor import table

        known, given = own_components(recipe), list(words or ())
        if config is not None:
            text = of_recipe(config, given, known)
        else:
            if len(given) != 1:
                raise ValueError(f"expected one run, got {len(given)} words: equipoise doctor RUN, or --config RECIPE")
            from equipoise.doctor import Evidence, course, examine
            from equipoise.generate import Generator, generator_file
            from equipoise.runs import read_run

            run = read_run(Path(given[0]), known_to(known))
            generator = Generator.from_pretrained(run.folder, known) if generator_file(run.folder) else None
            facts: Mapping[str, float] = {}
            if deep:
                from equipoise.evaluate import deep_facts

                facts = deep_facts(run, generator, num=num, features=features, weights=weights)
            evidence = Evidence.of(run.stats, run.config, facts)
            found = table(examine(evidence), str(run.folder), course(evidence), recipe) or "No symptom."
            notes = [*unlooked(run, evidence, deep=deep), *remarks_of(run, generator)]
            text = "\n\n".join(part for part in (about(run, evidence.kimg), found, *notes) if part)
        out.print(text, markup=False)


def known_to(own: Mapping[str, Any] | None) -> Mapping[str, Any]:
    from equipoise.config import components

    return components() | dict(own or {})


def about(run: Run, kimg: float) -> str:
    """The first line on a run."""
    if not run.stats:
        return f"{run.folder}: there are no statistics yet"
    return f"{run.folder}: {kimg:g} of {run.config.total_kimg:g} kimg"


def unlooked(run: Run, evidence: Evidence, *, deep: bool) -> Iterator[str]:
    """A note on a run whose players nobody has looked at."""
    if run.stats and not deep and not evidence.curve("doctor/epochs"):
        yield (
            "note: Only curves were read. No snapshot was looked at: the run had no snapshot\n"
            "  yet, or was not watched (report.watch). --deep draws images and looks at them."
        )


def remarks_of(run: Run, generator: Any) -> Iterator[str]:
    """Remarks on files, speed and starts, and on guarantees that the config voids."""
    import textwrap

    from equipoise.view import discriminator, remarks

    D = None if generator is None else discriminator(run, generator.spec)
    for text in remarks(run, D):
        yield textwrap.fill(text, 80, initial_indent="note: ", subsequent_indent="  ", break_long_words=False)


def of_recipe(name: str, words: Sequence[str], own: Mapping[str, Any] | None) -> str:
    """The examination of a recipe with overrides: guarantees, settings, the content of its data."""
    from equipoise import recipes as library
    from equipoise.config import override
    from equipoise.doctor import of_config, of_images, table

    made, known = library.load(name, own)
    cfg = override(made, assignments(words, known))
    dataset = cfg.data.build()
    notes = list(voided_on(cfg, dataset))
    findings = of_config(cfg, of_images(dataset))
    err.print(f"looked at {min(len(dataset), 1024):,} of {len(dataset):,} images", markup=False)
    return "\n\n".join([*notes, *([table(findings)] if findings else [])]) or "No guarantee is void, and no symptom."


def voided_on(cfg: TrainConfig, dataset: Any) -> Iterator[str]:
    """Guarantees that the config voids on a data set."""
    import textwrap

    from equipoise.doctor import discriminator_on_paper, voided_by

    D = discriminator_on_paper(cfg, dataset.spec)
    if D is None:
        yield "note: D cannot be built without data, so its guarantees were not examined"
        return
    for reason in voided_by(cfg, D):
        yield textwrap.fill(reason, 80, initial_indent="void: ", subsequent_indent="  ", break_long_words=False)
