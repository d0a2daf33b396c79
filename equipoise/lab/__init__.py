"""The theory of GANs as experiments on the library's own losses, penalties, heads and networks.

An experiment is a module in a sub-folder with a subclass of `base.Experiment`. It is named after the module, or after
the folder if the module is experiment.py. Listing them reads the files without importing them, so `equipoise lab`
answers at once. The playground has a folder of its own. It is not an experiment, because it never ends in numbers.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Experiment

__all__ = ["COMPARING", "PLAYGROUND", "available", "load"]

COMPARING = ("grid", "ring", "swiss_roll")
"""Experiments with a field `compare`."""

PLAYGROUND = "Train a GAN of points in the browser: change loss, penalties and norms while it runs."
"""The line that describes `equipoise lab playground` in the list."""


def modules() -> dict[str, tuple[str, str]]:
    """Experiments by name: the module below this one, and the first line of its docstring."""
    experiments, here = {}, Path(__file__).parent
    for path in here.glob("*/*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and "Experiment" in map(ast.unparse, node.bases):
                name = path.parent.name if path.stem == "experiment" else path.stem
                line = (ast.get_docstring(node) or "").partition("\n")[0]
                experiments[name] = (".".join(path.relative_to(here).with_suffix("").parts), line)
    return dict(sorted(experiments.items()))


def available() -> dict[str, str]:
    """Experiments by name, with the first line of their docstring."""
    return {name: line for name, (_, line) in modules().items()}


def load(name: str) -> type[Experiment]:
    """The experiment called `name`.

    Raises:
        ValueError: for an unknown name. The message suggests the nearest one.
    """
    from equipoise.core.grammar import suggest

    from .base import Experiment

    experiments = modules()
    if name not in experiments:
        raise ValueError(f"there is no experiment {name!r}{suggest(name, [*experiments, 'playground'])}")
    module = importlib.import_module(f"{__name__}.{experiments[name][0]}")
    classes = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    return next(item for item in classes if issubclass(item, Experiment))
