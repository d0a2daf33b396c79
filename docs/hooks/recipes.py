"""The recipes, from their own docstrings and configs.

``<<< recipes`` becomes a table of all, the oldest paper first. ``<<< papers`` becomes the docstring of every file: its
sources, and the differences from the paper.
"""

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `mkdocs` does not look where it is called

RECIPES = re.compile(r"^<<< recipes$", re.MULTILINE)
PAPERS = re.compile(r"^<<< papers$", re.MULTILINE)
PAPER = re.compile(r" ?\((?P<paper>[A-Z][^()]* (?P<year>\d{4}))\)")
MADE_OF = ("loss", "terms", "g_normalizer", "d_normalizer", "constraints", "augment", "head", "growth", "start")
"""Fields that say what a method is; the others say how long, on what and how fast."""
PLAYERS = {"g_normalizer": " in G", "d_normalizer": " in D"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    markdown = RECIPES.sub(lambda _: table(), markdown)
    return PAPERS.sub(lambda _: "\n\n".join(papers()), markdown)


def lines() -> dict[str, tuple[str, str]]:
    """`equipoise recipes`, the oldest paper first: by name the file, and the first line of the docstring."""
    from equipoise.recipes import available

    def year(item: tuple[str, tuple[str, str]]) -> str:
        paper = PAPER.search(item[1][1])
        return paper["year"] if paper else ""

    return dict(sorted(available().items(), key=year))


@cache
def table() -> str:
    """A row for each recipe. Raises ValueError for one whose first line is empty."""
    rows = (row(name, line) for name, (_, line) in lines().items())
    head = "| recipe | method, and its parts beside the defaults | default data | weights: G, D | batch | kimg |"
    return "\n".join((head, "|---|---|---|---|---|---|", *rows))


def row(name: str, line: str) -> str:
    from equipoise import recipes

    if not line:
        raise ValueError(
            f"the recipe {name} has no docstring: `equipoise recipes` and the documentation show its first line"
        )
    config, _ = recipes.load(name)
    parts = ", ".join(made_of(config))
    anchor = f"recipes.md#equipoise.recipes.{lines()[name][0]}"
    cells = (f"{line}{parts and f'<br>{parts}'}", data(config), weights(config), config.batch_size)
    return f"| [`{name}`]({anchor}) | {' | '.join(map(str, cells))} | {config.total_kimg:,.0f} |"


def made_of(config: Any) -> Iterator[str]:
    """The parts of a config that differ from the defaults, as the command line takes them."""
    short = beside("settings").short
    config = dataclasses.replace(config, head=dataclasses.replace(config.head, init_std=None))
    for name in MADE_OF:
        value = getattr(config, name)
        if short(value) != short(config.__pydantic_fields__[name].default):
            player = PLAYERS.get(name, "")
            yield from (f"`{short(item)}`{player}" for item in (value if isinstance(value, tuple) else (value,)))
    if config.d_steps != 1:
        yield f"`d_steps={short(config.d_steps)}`"


def data(config: Any) -> str:
    """The data set, and its image size and colours."""
    spec = spec_of(config.data)
    return f"`{type(config.data).__name__}`, {spec.resolution}x{spec.resolution}{'' if spec.channels == 3 else ' grey'}"


def spec_of(source: Any) -> Any:
    """Sizes of a data set, without its files: a folder has the resolution that the recipe asks for, in colour."""
    from equipoise.core.types import ImageSpec
    from equipoise.data import CIFAR10, Images

    if isinstance(source, CIFAR10):
        return ImageSpec(channels=3, resolution=32, num_classes=10)
    if isinstance(source, Images):
        return ImageSpec(channels=source.channels or 3, resolution=source.resolution, num_classes=1000)
    return source.build().spec


def weights(config: Any) -> str:
    """Parameters of both networks on the default data, counted on the meta device."""
    from equipoise.models.counts import on_meta
    from equipoise.models.describe import short

    G, D, *_ = on_meta(config.generator, config.discriminator, config.head, spec_of(config.data))
    return ", ".join(short(sum(p.numel() for p in net.parameters())).replace(" ", "&nbsp;") for net in (G, D))


def papers() -> Iterator[str]:
    """The directives of mkdocstrings for the files, in the order of the table."""
    for home in dict.fromkeys(home for home, _ in lines().values()):
        yield f"::: equipoise.recipes.{home}\n    options: {{ members: false, show_source: false }}"


@cache
def beside(name: str) -> ModuleType:
    """Another hook: MkDocs loads them by path, not as a package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
