"""Published methods as configs: functions that return a `TrainConfig`, one paper per file.

Listing recipes reads the files without importing them, so `equipoise recipes` answers at once.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.core.plugins import from_file

if TYPE_CHECKING:
    from equipoise.config import TrainConfig

__all__ = ["available", "load"]


def available() -> dict[str, tuple[str, str]]:
    """Recipes by name: the module that holds the recipe, and the first line of its docstring.

    A recipe is a public function of this room that returns a `TrainConfig` and needs no argument.
    """
    recipes = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if path.stem != "__init__" and isinstance(node, ast.FunctionDef) and is_recipe(node):
                recipes[node.name] = (path.stem, (ast.get_docstring(node) or "").partition("\n")[0])
    return recipes


def is_recipe(node: ast.FunctionDef) -> bool:
    returned = None if node.returns is None else ast.unparse(node.returns)
    return returned == "TrainConfig" and not node.name.startswith("_")


def load(name: str, known: Mapping[str, Any] | None = None) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of a recipe, and the components that its text may call.

    name: one of `available`; ``FILE.py:FUNCTION`` for a recipe of your own, with the components of that file; a file
        of settings, ``.yaml``, ``.yml`` or ``.json``; or the ``config.txt`` of a run.
    known: components of your own that a file may call.

    Raises:
        ValueError: for an unknown name (the message gives the nearest), or a file without this function or a config.
    """
    from equipoise.config import TrainConfig, components

    suffix, own = Path(name).suffix.lower(), dict(known or {})
    if suffix in KEYS:
        return _from_keys(name, own)
    if suffix == ".txt":
        return _from_text(Path(name), components() | own), components() | own
    function, extra = from_file(name) if ".py" in name else (_from_library(name), {})
    config = function()
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{name} returned {config!r}; a recipe is a function that returns a TrainConfig")
    return config, components() | own | extra


KEYS = (".yaml", ".yml", ".json")
"""Suffixes of files that `core.keyfile` reads."""


def _from_text(path: Path, known: Mapping[str, Any]) -> TrainConfig:
    from equipoise.runs.directory import config_text, parse_config

    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return parse_config(config_text(path), known)
    except ValueError as error:
        raise ValueError(
            f"cannot read the config in {path}: {error}. If the config comes from a file of yours, name the file: "
            "--recipe FILE.py:FUNCTION"
        ) from None


def _from_keys(name: str, own: Mapping[str, Any], above: tuple[str, ...] = ()) -> tuple[TrainConfig, dict[str, Any]]:
    """Read a file of settings. above: the files that led here, each naming the next as its recipe."""
    from equipoise import config
    from equipoise.core.keyfile import changes_of, read_keys

    keys = read_keys(Path(name))
    base, known, recipe = None, config.components() | dict(own), keys.pop("recipe", None)
    if recipe is not None:
        if not isinstance(recipe.value, str):
            raise ValueError(f"{name}: expected the name of a recipe, got another value in the field 'recipe'")
        if recipe.value in (*above, name):
            raise ValueError(f"{name}: its recipe is {recipe.value}, whose own recipe is {name} again")
        if Path(recipe.value).suffix.lower() in KEYS:
            base, known = _from_keys(recipe.value, own, (*above, name))
        else:
            base, known = load(recipe.value, own)
    try:
        changes = changes_of(keys, known)
    except ValueError as error:
        raise ValueError(f"{name}, {error}") from None

    def apply(chosen: Mapping[str, Any]) -> TrainConfig:
        made: TrainConfig = config.build(chosen) if base is None else config.override(base, chosen)
        return made

    values = {path: change.value for path, change in changes.items()}
    try:
        return apply(values), known
    except ValueError as error:
        lines = {path: change.line for path, change in changes.items()}
        located = _located(str(error), name, values, lines, apply)
        whole = base is None and " needs the field " in str(error)
        fix = f"\n{name}: give them, or a recipe that has them, such as recipe: quickstart" if whole else ""
        raise ValueError(located + fix) from None


def _located(
    message: str,
    name: str,
    values: Mapping[str, Any],
    lines: Mapping[str, int | None],
    apply: Callable[[Mapping[str, Any]], Any],
) -> str:
    """`message` with the place of each mistake: the keys that cause it alone if there are any, else all that it needs.

    A key is needed if the mistake disappears without it.
    """

    def mistakes(chosen: Mapping[str, Any]) -> list[str]:
        try:
            apply(chosen)
        except ValueError as error:
            return str(error).splitlines()
        return []

    without = {path: mistakes({other: value for other, value in values.items() if other != path}) for path in values}
    alone = {path: mistakes({path: value}) for path, value in values.items()}
    located = []
    for mistake in message.splitlines():
        needed = [path for path in values if mistake not in without[path]]
        causes = [path for path in needed if mistake in alone[path]] or needed
        numbers = [str(lines[path]) for path in causes if lines[path] is not None]
        where = f", line{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)}" if numbers else ""
        located.append(f"{name}{where}{''.join(f', {path!r}' for path in causes)}: {mistake}")
    return "\n".join(located)


def _from_library(name: str) -> Callable[[], Any]:
    known = available()
    if name not in known:
        from equipoise.core.grammar import suggest
        from equipoise.core.nesting import shown

        fix = suggest(name, known)
        with suppress(OSError):  # the name is too long for a file
            text = Path(name) / "config.txt"
            fix = f": it is a run, whose config is {text}" if text.is_file() else fix
        raise ValueError(
            f"there is no recipe {shown(name)}{fix} (or a file of your own: FILE.py:FUNCTION, .yaml, .json, config.txt)"
        )
    module = importlib.import_module(f"{__name__}.{known[name][0]}")
    function: Callable[[], Any] = getattr(module, name)
    return function
