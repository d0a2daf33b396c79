"""The extras: every place that tells how to install one says the same, and the extra exists."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

from equipoise.core.extras import install

ROOT = Path(__file__).parents[1]
TEXTS = {".py", ".md", ".js", ".html", ".toml", ".txt", ".ipynb", ".yml", ".sh", ""}
COMMAND = re.compile(
    r"pip3? install(?P<options>[^\n]*?)(?P<quote>\\?['\"]?)(?P<what>[\w.-]*)\\?\[(?P<extra>[\w{}', ()]+)\\?\]"
)
DEVELOPMENT = "pip install -c constraints.txt -e '.[dev]'"
"""The one other form: the tools of those who change the package, in place."""


@cache
def places() -> list[tuple[str, str]]:
    """(file, command with an extra), over all texts that are shipped."""
    roots = ("equipoise", "docs", "tests", "examples", "benchmarks", "scripts", ".ci")
    files = [path for root in roots for path in (ROOT / root).rglob("*") if path.is_file() and path.suffix in TEXTS]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXTS]
    return [
        (str(path.relative_to(ROOT)), found[0].replace("\\", ""))
        for path in files
        if path not in (Path(__file__), ROOT / "equipoise/core/extras.py")
        for found in COMMAND.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]


def test_every_place_names_an_extra_as_it_can_be_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    seen = places()
    assert {place for place, _ in seen} >= {"README.md", "docs/export.md", "docs/lab.md", "tests/test_toy.py"}
    for place, command in seen:
        named = command.rpartition("[")[2].removesuffix("]").split(",")
        assert set(named) <= extras.keys(), place
        assert command in (install(*named).removesuffix("'"), DEVELOPMENT.removesuffix("'")), place


def test_code_quotes_the_one_function_that_knows_the_command():
    """A message that spells the command out would be left behind when the package is published."""
    written = [place for place, _ in places() if place.startswith("equipoise/")]
    assert written == []
    used = {
        extra
        for path in (ROOT / "equipoise").rglob("*.py")
        for extra in re.findall(r"(?<!def )\binstall\(['\"](\w+)['\"]\)", path.read_text(encoding="utf-8"))
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert used <= extras.keys()
    assert used >= {"export", "features", "heic", "hf", "hub", "lab", "playground"}
