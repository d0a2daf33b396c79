"""What CONTRIBUTING.md promises: an architecture, a loss or a term is added in few files, and no file lists them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

from loops import loop_over

from equipoise import models
from equipoise.losses import adversarial, joint, penalties, regularizers
from equipoise.models import sagan

ROOT = Path(__file__).parents[1]
HOMES = ("equipoise", "tests", "docs", "README.md", "examples", "scripts", "benchmarks")


def tracked():
    """Texts of the package, its tests and its documentation: those that git knows, or all if this is no checkout."""
    listed = subprocess.run(["git", "ls-files", *HOMES], cwd=ROOT, capture_output=True, text=True, check=False)
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    for home in HOMES if listed.returncode or not paths else ():
        paths += [ROOT / home, *(ROOT / home).rglob("*")]
    return [path for path in paths if path.suffix in (".py", ".pyi", ".md") and path.is_file()]


TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in tracked()}
WORDS = {file: set(re.findall(r"\w+", text)) for file, text in TEXTS.items()}


def naming(names):
    """Files in which one of `names` occurs."""
    return {file for file, words in WORDS.items() if not words.isdisjoint(names)}


def test_an_architecture_is_named_in_few_files():
    """Its own, the list of public names, its test, its recipe and the page of architectures, and one to spare."""
    found = naming(sagan.__all__)
    assert {"equipoise/models/sagan.py", "equipoise/models/__init__.py", "tests/test_sagan.py"} <= found
    assert len(found) <= 6, sorted(found)


PAPERS = {
    module: {name for name in models.__all__ if getattr(getattr(models, name), "__module__", "").endswith(f".{module}")}
    for module in sorted(path.stem for path in (ROOT / "equipoise" / "models").glob("*.py"))
    if hasattr(getattr(models, module, None), "PUBLISHED")
}
"""By the file that defines them, the settings of published architectures."""
LISTS = {"equipoise/models/__init__.py", "docs/models.md", "tests/test_zoo_fixtures.py"}
"""Public names, the page that describes each, and comparisons with numbers of other implementations."""


def test_nobody_lists_architectures():
    """A file that names those of more than four papers is a list, to which a new one would have to be added."""
    assert len(PAPERS) >= 10
    naming_each = {paper: naming(names) for paper, names in PAPERS.items()}
    named = {file: [paper for paper, files in naming_each.items() if file in files] for file in TEXTS}
    assert {file: papers for file, papers in named.items() if len(papers) > 4 and file not in LISTS} == {}


@loop_over(
    ("home", "page"),
    [(adversarial, "losses"), (penalties, "penalties"), (regularizers, "regularizers"), (joint, "joint")],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_the_page_of_each_kind_has_the_table_that_is_made_of_it(home, page):
    assert f"<<< components {home.__name__}" in TEXTS[f"docs/{page}.md"]
    for name in home.__all__:
        component = getattr(home, name)
        if dataclasses.is_dataclass(component):
            assert component() is not None  # the table shows its defaults
