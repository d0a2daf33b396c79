"""Components and recipes from a user's own file: FILE.py:NAME."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

__all__ = ["from_file"]


def from_file(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Load FILE.py:NAME: that function or class, and the file's components by name.

    Raises:
        ValueError: if the file is missing or is not Python, or if it defines nothing callable of that name.
    """
    file, _, function = name.rpartition(":")
    path = Path(file or name)
    if not file or not function:
        example = shlex.quote(f"{name}:recipe")
        raise ValueError(f"{name!r} names no function: give FILE.py:FUNCTION, such as {example}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    loader = SourceFileLoader(f"recipe_{path.stem}", str(path))  # prefixed: a user's torch.py must not replace torch
    try:
        loader.get_code(loader.name)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ) as error:  # errors while it runs are bugs in the file, raised as they are
        raise ValueError(
            f"{path} is not a Python file that can be read: {str(error) or type(error).__name__}"
        ) from error
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as Python does for a script: the file may import its neighbours
    loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{path} has no function {function!r}")
    components = {k: v for k, v in vars(module).items() if isinstance(v, type) and hasattr(v, "__dataclass_fields__")}
    return getattr(module, function), components
