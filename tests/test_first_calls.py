"""MKL's vector functions are called on one element before threads share out a large tensor, in whatever imports us."""

from __future__ import annotations

import ast
import ctypes
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from watch_first_calls import Sizes

import equipoise
from equipoise.core.first_calls import FUNCTIONS, warm_up

ROOT = Path(equipoise.__file__).parent
CALLED_BY_OTHERS = {
    "compute.precision",
    "compute.recompute",
    "compute.taps",
    "core.first_calls",
    "core.misfits",
    "core.pickled_arrays",
    "core.randomness",
    "core.tensorfile",
    "lab.points.surface",
}
"""Modules of layers and helpers, whose callers have imported another one."""


def test_a_run_calls_each_function_on_one_element_first(tmp_path):
    script = Path(__file__).parent / "watch_first_calls.py"
    command = [sys.executable, script, tmp_path, ",".join(FUNCTIONS)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    calls = json.loads(printed.splitlines()[-1])
    assert len(calls) == 2 * len(FUNCTIONS)
    assert all(sizes[0] == 1 for sizes in calls.values())
    assert max(calls["tanh torch.float32"]) > 1000  # of G's images


def test_all_functions_are_called_once_in_both_precisions():
    with Sizes(FUNCTIONS) as sizes:
        warm_up()
    assert sizes.calls == {f"{f} torch.{dtype}": [1] for f in FUNCTIONS for dtype in ("float32", "float64")}


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch computes without MKL")
def test_the_functions_are_those_that_torch_takes_from_mkl():
    """By the symbols of torch's library, which links what it calls."""
    library = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("*torch_cpu.*"))))
    names = ["Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cbrt", "Ceil", "Cos", "Cosh", "Erf", "Erfc"]
    names += ["ErfInv", "Exp", "Exp2", "Expm1", "Floor", "Frac", "Inv", "InvSqrt", "LGamma", "Ln", "Log10", "Log1p"]
    names += ["Log2", "Rint", "Round", "Sin", "Sinh", "Sqr", "Sqrt", "Tan", "Tanh", "TGamma", "Trunc"]
    for precision in "sd":
        linked = [name.lower() for name in names if hasattr(library, f"vm{precision}{name}")]
        assert sorted("log" if name == "ln" else name for name in linked) == sorted(FUNCTIONS)


# ---- all modules that compute -------------------------------------------------------------------------------


def module_name(path):
    return ".".join(("equipoise", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


FILES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imported(module):
    """The modules that `module` imports when it is imported, its packages among them, and names that it takes."""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = {module.rsplit(".", i)[0] for i in range(1, module.count(".") + 1)}
    for node in ast.parse(FILES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            home = ".".join(filter(None, (above, node.module)))
            found |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return found


def test_all_modules_that_compute_import_the_one_that_calls_them():
    """So every entry point does: commands, experiments, the playground's processes, and the Python API."""
    direct = {module: imported(module) for module in FILES}
    assert "equipoise.core.first_calls" in direct["equipoise.core.types"]
    warm = {"equipoise.core.types"}
    while more := {module for module, modules in direct.items() if modules & warm} - warm:
        warm |= more
    computing = {module for module, modules in direct.items() if any(m.split(".")[0] == "torch" for m in modules)}
    assert {"equipoise.train.loop", "equipoise.lab.dirac.experiment", "equipoise.lab.playground.worker"} <= computing
    assert {module.removeprefix("equipoise.") for module in computing - warm} == CALLED_BY_OTHERS
