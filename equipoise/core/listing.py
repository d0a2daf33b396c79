"""Classes of a room, read from the source text: the command line lists them without importing torch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

__all__ = ["Listed", "named"]


class Listed(NamedTuple):
    """module: dotted module of the class.  kind: its Python name.  bases: names of its base classes, and of those of base classes
    in the same file.
    """

    module: str
    kind: str
    bases: tuple[str, ...]


def named(room: str) -> dict[str, Listed]:
    """Classes of a room that set `name: ClassVar[str] = "..."` themselves, by that name, in alphabetical order.

    Raises:
        ValueError: if two classes share a name.
    """
    package, listed = Path(__file__).parents[1], dict[str, Listed]()
    for path in sorted((package / room).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "name: ClassVar[str] =" not in text:
            continue  # saves the parsing, which takes most of the time
        ancestors = dict[str, tuple[str, ...]]()
        for node in ast.parse(text).body:
            if not isinstance(node, ast.ClassDef):
                continue
            direct = [ast.unparse(base).partition("[")[0] for base in node.bases]
            ancestors[node.name] = tuple(each for base in direct for each in (base, *ancestors.get(base, ())))
            name = own_name(node)
            if name is None:
                continue
            if name in listed:
                raise ValueError(f"{path.name} and {listed[name].module} both name a class {name!r}: rename one")
            listed[name] = Listed(f"{package.name}.{room}.{path.stem}", node.name, ancestors[node.name])
    return dict(sorted(listed.items()))


def own_name(node: ast.ClassDef) -> str | None:
    """The `name` that a class assigns; None for a class without one."""
    for line in node.body:
        match line:
            case ast.AnnAssign(target=ast.Name(id="name"), value=ast.Constant(value=str(text))):
                return text
    return None
