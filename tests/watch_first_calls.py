"""A run in a process of its own, whose calls of MKL's vector functions are watched from the first import on.

    python watch_first_calls.py RUN FUNCTION,...

Prints JSON: "FUNCTION DTYPE" -> elements of its argument, call by call. `Sizes` is for other tests too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode


class Sizes(TorchDispatchMode):
    """Elements of the arguments of `functions`, call by call."""

    def __init__(self, functions):
        super().__init__()
        self.functions, self.calls = functions, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        if name in self.functions:
            self.calls.setdefault(f"{name} {args[0].dtype}", []).append(args[0].numel())
        return func(*args, **(kwargs or {}))


if __name__ == "__main__":
    with Sizes(sys.argv[2].split(",")) as sizes:
        from equipoise.cli.app import app

        recipe = f"{Path(__file__).parent / 'tiny.py'}:recipe"
        app(["train", recipe, sys.argv[1], "total_kimg=0.008"], standalone_mode=False)
    print(json.dumps(sizes.calls))
