"""Classes that the files of a room define, read from their text. So the command line can list them without torch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

__all__ = ["Listed", "named"]


class Listed(NamedTuple):
    """module, kind: where a class is, and what it is called there.  bases: the names of its bases."""

    module: str
    kind: str
    bases: tuple[str, ...]


def named(room: str) -> dict[str, Listed]:
    """The classes of a room that have a `name: ClassVar[str] = "..."` of their own, by that name, alphabetically.

    Raises:
        ValueError: if two have the same name.
    """
    package, found = Path(__file__).parents[1], dict[str, Listed]()
    for path in sorted((package / room).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "name: ClassVar[str] =" not in text:
            continue  # parsing is most of the time
        for node in ast.parse(text).body:
            name = own_name(node)
            if not isinstance(node, ast.ClassDef) or name is None:
                continue
            if name in found:
                raise ValueError(f"{path.name} and {found[name].module} both name a class {name!r}: rename one")
            bases = tuple(ast.unparse(base).partition("[")[0] for base in node.bases)
            found[name] = Listed(f"{package.name}.{room}.{path.stem}", node.name, bases)
    return dict(sorted(found.items()))


def own_name(node: ast.stmt) -> str | None:
    """What a class assigns to its `name`; None for any other statement."""
    for line in node.body if isinstance(node, ast.ClassDef) else ():
        match line:
            case ast.AnnAssign(target=ast.Name(id="name"), value=ast.Constant(value=str(text))):
                return text
    return None
