"""The house: rooms one above the other, imports that run down only, and no circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "equipoise"
ORDER = (
    "core",
    "compute",
    "data",
    "augment",
    "metrics",
    "nn",
    "weights",
    "losses",
    "features",
    "models",
    "rules",
    "config",
    "runs",
    "recipes",
    "doctor",
    "generate",
    "evaluate",
    "train",
    "lab",
    "cli",
)
"""From the ground up. A room may import those before it."""

FILES = {
    ".".join(("equipoise", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")
}
TOP = {"equipoise.__init__", "equipoise.__main__", "equipoise.config"}


def room(module: str) -> str:
    return module.split(".")[1]


def imported(module: str) -> set[str]:
    """Files of the package that `module` imports, in functions and under TYPE_CHECKING too.

    A name out of a room counts as the room's `__init__`, a name of the package itself (its version) not at all.
    """
    parts, found = module.split("."), set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = ".".join((*parts[: len(parts) - node.level], node.module or "")) if node.level else node.module or ""
            home = home.rstrip(".")
            names = [f"{home}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            for candidate in (name, f"{name}.__init__", name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__"):
                if candidate in FILES:
                    found.add(candidate)
                    break
    return found - {"equipoise.__init__", module}


IMPORTS = {module: imported(module) for module in FILES}


def test_every_file_is_in_a_room():
    assert {room(module) for module in FILES} - {"__init__", "__main__"} == set(ORDER)
    assert {module for module in FILES if module.count(".") == 1} == TOP


@pytest.mark.parametrize("here", ORDER)
def test_imports_run_down(here):
    above = set(ORDER[ORDER.index(here) + 1 :])
    upwards = [(a, b) for a, homes in IMPORTS.items() if room(a) == here for b in sorted(homes) if room(b) in above]
    assert upwards == []


def test_there_is_no_circle():
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_model_imports_a_model():
    """Layers that they share are in nn/. The base class, settings of heads, and what lists or counts all are none."""
    shared = {"__init__", "base", "head", "conditioning", "bounded", "counts", "describe", "zoo"}
    papers = {module for module in FILES if room(module) == "models" and module.split(".")[2] not in shared}
    assert len(papers) >= 10
    assert {module: IMPORTS[module] & papers for module in papers if IMPORTS[module] & papers} == {}


def test_a_file_of_the_room_is_imported_from_its_sibling():
    """From the room itself it would be a circle, which only the order of its `__init__` could hide."""
    inside = [(a, b) for a, homes in IMPORTS.items() for b in homes if b == f"equipoise.{room(a)}.__init__" and a != b]
    allowed = {"lab", "recipes"}  # their `__init__` lists what is there, and imports none of it
    assert [pair for pair in inside if room(pair[0]) not in allowed] == []


def test_the_check_sees_what_it_is_for():
    assert "equipoise.core.types" in IMPORTS["equipoise.losses.penalties"]
    assert "equipoise.losses.adversarial" in IMPORTS["equipoise.losses.objective"]  # relative
    assert "equipoise.recipes.__init__" in IMPORTS["equipoise.cli.train"]  # in a function
    assert "equipoise.config" in IMPORTS["equipoise.recipes.__init__"]  # under TYPE_CHECKING
