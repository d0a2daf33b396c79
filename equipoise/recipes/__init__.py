"""Published methods as configs: functions that return a `TrainConfig`, one paper per file.

Listing them reads the files without importing them, so `equipoise recipes` answers at once.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..config import TrainConfig

__all__ = ["available", "from_file", "load"]


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
    from ..config import TrainConfig, components

    function, extra = from_file(name) if ".py" in name else (_from_library(name), {})
    config = function()
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{name} returned {config!r}; a recipe is a function that returns a TrainConfig")
    return config, components() | extra


def _from_library(name: str) -> Callable[[], Any]:
    known = available()
    if name not in known:
        from ..config import suggest
        from ..nesting import shown

        raise ValueError(
            f"there is no recipe {shown(name)}{suggest(name, known)} (or FILE.py:FUNCTION for one of your own)"
        )
    module = importlib.import_module(f"{__name__}.{known[name][0]}")
    function: Callable[[], Any] = getattr(module, name)
    return function


def from_file(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The function or class that FILE.py:NAME names, and the file's own components by name.

    Raises:
        ValueError: if there is no such file, it is not Python, or nothing to call of that name is in it.
    """
    file, _, function = name.rpartition(":")
    path = Path(file or name)
    if not file or not function:
        example = shlex.quote(f"{name}:recipe")
        raise ValueError(f"{name!r} names no function: give FILE.py:FUNCTION, such as {example}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    loader = SourceFileLoader(f"recipe_{path.stem}", str(path))  # a file named torch.py is no torch
    try:
        loader.get_code(loader.name)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # what it raises when it runs is a bug in it
        raise ValueError(
            f"{path} is not a Python file that can be read: {str(error) or type(error).__name__}"
        ) from error
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as for a script: the file may import its neighbours
    loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{path} has no function {function!r}")
    own = {k: v for k, v in vars(module).items() if isinstance(v, type) and hasattr(v, "__dataclass_fields__")}
    return getattr(module, function), own
