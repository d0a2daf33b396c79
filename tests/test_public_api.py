"""What `import equipoise` offers, and what it does not wait for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from loops import loop_over

import equipoise

ROOT = Path(equipoise.__file__).parents[1]
STUB = ast.parse(Path(equipoise.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
LISTED = {alias.asname: node.module for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def python(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@loop_over("name", LISTED)
def test_every_listed_name_is_there(name):
    assert name in equipoise.__all__
    assert name in dir(equipoise)
    home = importlib.import_module(f"equipoise.{LISTED[name]}")
    assert getattr(equipoise, name) is getattr(home, name)
    assert name in home.__all__
    assert getattr(equipoise, name).__doc__


def test_all_is_the_list():
    assert set(equipoise.__all__) == {*LISTED, "__version__"}
    assert len(equipoise.__all__) == len(set(equipoise.__all__))


def test_the_stub_reexports_each_name_explicitly():
    """`from .x import A as A`, which type checkers need, a name a line, sorted within and across modules."""
    imports = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    assert [node.module for node in imports] == sorted(node.module for node in imports)


def test_star_import():
    space = {}
    exec("from equipoise import *", space)
    assert set(equipoise.__all__) <= set(space)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'equipoise' has no attribute 'Hing'"):
        _ = equipoise.Hing
    with pytest.raises(ImportError, match="cannot import name 'Hing'"):
        from equipoise import Hing  # noqa: F401


def test_version():
    major, minor, patch = equipoise.__version__.split(".")
    assert all(part.isdigit() for part in (major, minor, patch))
    try:
        installed = metadata.version("equipoise")
    except metadata.PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")
    assert installed == equipoise.__version__


def test_the_package_is_typed():
    assert (ROOT / "equipoise" / "py.typed").exists()


# ---- what does not wait for torch ----------------------------------------------------------------------------------

HEAVY = ("torch", "numpy")


COMMANDS = ([], ["--version"], ["--help"], ["train", "--help"], ["evaluate", "--help"], ["recipes"])


def test_torch_is_not_imported():
    """Importing it takes seconds. In one interpreter: each command adds its imports to those before it."""
    code = f"""if True:
        import sys, equipoise
        equipoise.__version__, dir(equipoise)
        for arguments in {COMMANDS!r}:
            if arguments:
                from equipoise.cli.app import app
                app(arguments, standalone_mode=False)
            print("LOADED", arguments, [m for m in {HEAVY!r} if m in sys.modules])
    """
    found = [line for line in python(code).splitlines() if line.startswith("LOADED")]
    assert found == [f"LOADED {arguments} []" for arguments in COMMANDS]


def test_a_name_imports_only_its_home():
    printed = python(
        "import sys, equipoise; equipoise.Hinge;"
        "print(*('equipoise.' + name in sys.modules for name in ('losses.adversarial', 'data', 'train.loop')))"
    )
    assert printed == "True False False\n"


def test_a_subpackage_shares_no_name_with_the_api():
    """`equipoise.losses.adversarial` must stay the module, whatever the API offers."""
    modules = {p.stem for p in (ROOT / "equipoise").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert not modules & set(equipoise.__all__)
