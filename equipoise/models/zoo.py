"""Published pairs of networks at the sizes of their papers, as `equipoise models` lists them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from .base import Pair

__all__ = ["ZOO"]


def published() -> dict[str, Pair]:
    """The pairs of `PUBLISHED` in every file beside this one, oldest papers first."""
    names = [module.name for module in iter_modules([str(Path(__file__).parent)]) if module.name != "zoo"]
    pairs: dict[str, Pair] = {}
    for name in names:
        pairs |= getattr(import_module(f"{__package__}.{name}"), "PUBLISHED", {})
    return dict(sorted(pairs.items(), key=lambda item: item[1].paper[-4:]))  # `paper` ends with the year


ZOO = published()
"""Published pairs by name. A name ends with the size."""
