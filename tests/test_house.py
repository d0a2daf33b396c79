"""The house: rooms one above the other, imports that run down only, and no circle."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from loops import loop_over

from equipoise.config import TrainConfig

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
    "track",
    "view",
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


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def names(module: str) -> list[str]:
    """All that `module` imports, by its full name, in functions and under TYPE_CHECKING too."""
    parts, found = module.split("."), []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = ".".join((*parts[: len(parts) - node.level], node.module or "")) if node.level else node.module or ""
            found += [f"{home.rstrip('.')}.{alias.name}" for alias in node.names]
    return found


def imported(module: str) -> set[str]:
    """Files of the package that `module` imports.

    A name out of a room counts as the room's `__init__`, a name of the package itself (its version) not at all.
    """
    found = set()
    for name in names(module):
        for candidate in (name, f"{name}.__init__", name.rpartition(".")[0], f"{name.rpartition('.')[0]}.__init__"):
            if candidate in FILES:
                found.add(candidate)
                break
    return found - {"equipoise.__init__", module}


@cache
def imports() -> dict[str, set[str]]:
    return {module: imported(module) for module in FILES}


def test_every_file_is_in_a_room():
    assert {room(module) for module in FILES} - {"__init__", "__main__"} == set(ORDER)
    assert {module for module in FILES if module.count(".") == 1} == TOP


@loop_over("here", ORDER)
def test_imports_run_down(here):
    above = set(ORDER[ORDER.index(here) + 1 :])
    upwards = [(a, b) for a, homes in imports().items() if room(a) == here for b in sorted(homes) if room(b) in above]
    assert upwards == []


def test_there_is_no_circle():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_model_imports_a_model():
    """Layers that they share are in nn/. The base class, settings of heads, and lists, counts and files are none."""
    shared = {"__init__", "base", "head", "conditioning", "bounded", "counts", "describe", "published", "zoo"}
    shared |= {"pickled", "persistent", "tensorflow"}
    papers = {module for module in FILES if room(module) == "models" and module.split(".")[2] not in shared}
    assert len(papers) >= 10
    assert {module: imports()[module] & papers for module in papers if imports()[module] & papers} == {}


def test_a_file_of_the_room_is_imported_from_its_sibling():
    """From the room itself it would be a circle, which only the order of its `__init__` could hide."""
    inside = [
        (a, b) for a, homes in imports().items() for b in homes if b == f"equipoise.{room(a)}.__init__" and a != b
    ]
    allowed = {"lab", "recipes"}  # their `__init__` lists what is there, and imports none of it
    assert [pair for pair in inside if room(pair[0]) not in allowed] == []


def test_a_layer_asks_nobody_how_it_is_computed():
    """Beside sums over processes and precision for one operation, it may only be recomputed."""
    allowed = {
        "equipoise.compute.distributed.stack_ranks",
        "equipoise.compute.distributed.world_size",
        "equipoise.compute.precision.without_autocast",
        "equipoise.compute.recompute.recomputed",
    }
    layers = [module for module in FILES if room(module) in ("nn", "models")]
    asked = [(a, name) for a in layers for name in names(a) if name.startswith("equipoise.compute")]
    assert [pair for pair in asked if pair[1] not in allowed] == []
    assert {name for _, name in asked} == allowed


def test_the_check_sees_what_it_is_for():
    assert "equipoise.core.types" in imports()["equipoise.losses.penalties"]
    assert "equipoise.losses.adversarial" in imports()["equipoise.losses.objective"]  # relative
    assert "equipoise.recipes.__init__" in imports()["equipoise.cli.train"]  # in a function
    assert "equipoise.config" in imports()["equipoise.recipes.__init__"]  # under TYPE_CHECKING


# ---- the loop ----------------------------------------------------------------------------------------------------

TECHNIQUES = re.compile(
    r"\b(ada|san|sanify|wasserstein|freezed|transfer|consensus|growth|grow|grows|lod|auxiliary|semi_supervised|hinge|"
    r"projection|spectral_norm|r1|r2|gradientpenalty|dragan|orthogonal|featurematching|matching|clipweights|"
    r"renormalize|normalize_loss|learned|reuse|kept|history|translation|cycle|cyclegan|autoencoder|quantised|bigan)\b",
    re.IGNORECASE,
)
"""Words that name what a loop must not know. A technique is a term, a head, a game or an event; see docs/design.md."""


@loop_over("name", ["loop", "steps", "gan"])
def test_the_loop_names_no_technique(name):
    text = FILES[f"equipoise.train.{name}"].read_text(encoding="utf-8")
    assert sorted({found.group() for found in TECHNIQUES.finditer(text)}) == []


def test_words_of_techniques_are_found():
    assert TECHNIQUES.search("if cfg.head.san:")
    assert TECHNIQUES.search("isinstance(term, R1)")
    assert not TECHNIQUES.search("thousands of images")


@loop_over("module", sorted(module for module in FILES if room(module) == "train"))
def test_a_file_of_the_trainer_imports_few_names(module):
    found = [
        alias
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert len(found) <= 30, f"{module} imports {len(found)} names"


# ---- sizes -------------------------------------------------------------------------------------------------------


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{module}.{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for module in FILES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def test_a_config_has_few_fields():
    assert len(dataclasses.fields(TrainConfig)) <= 25
