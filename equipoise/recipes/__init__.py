"""Published methods as configs: functions that return a `TrainConfig`, one paper per file.

Listing them reads the files without importing them, so `equipoise recipes` answers at once.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.core.plugins import from_file

if TYPE_CHECKING:
    from equipoise.config import TrainConfig

__all__ = ["available", "load"]


def available() -> dict[str, tuple[str, str]]:
    """Recipes by name: the module that holds it, and the first line of its docstring."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if path.stem != "__init__" and isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = (path.stem, (ast.get_docstring(node) or "").partition("\n")[0])
    return found


def load(name: str) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of a recipe, and the components that its text may call.

    name: one of `available`, or ``FILE.py:FUNCTION`` for a recipe of your own, whose file's components count too.

    Raises:
        ValueError: for an unknown name, with the nearest one, or a file without such a function.
    """
    from equipoise.config import TrainConfig, components

    function, extra = from_file(name) if ".py" in name else (_from_library(name), {})
    config = function()
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{name} returned {config!r}; a recipe is a function that returns a TrainConfig")
    return config, components() | extra


def _from_library(name: str) -> Callable[[], Any]:
    known = available()
    if name not in known:
        from equipoise.core.grammar import suggest
        from equipoise.core.nesting import shown

        raise ValueError(
            f"there is no recipe {shown(name)}{suggest(name, known)} (or FILE.py:FUNCTION for one of your own)"
        )
    module = importlib.import_module(f"{__name__}.{known[name][0]}")
    function: Callable[[], Any] = getattr(module, name)
    return function
