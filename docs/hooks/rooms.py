"""The rooms of the package and their files, in the words of their own docstrings.

``<<< rooms`` becomes a box for each room: its sentence, the pages about it, and its files, each with the first line of
its docstring. ``<<< reference`` becomes the directives of mkdocstrings for every file of every room below the lab.

The order is `ORDER` of tests/test_house.py, and the navigation names the pages of a room (mkdocs.yml).
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "equipoise"
ROOMS = re.compile(r"^<<< rooms$", re.MULTILINE)
REFERENCE = re.compile(r"^<<< reference$", re.MULTILINE)
ON_OTHER_PAGES = ("lab", "cli")
"""Rooms without names to import: experiments and commands, which have pages."""


def on_page_markdown(markdown: str, *, config: Any = None, **_: Any) -> str:
    """Called by MkDocs for each page."""
    pages = {} if config is None else pages_of(config["nav"])
    markdown = ROOMS.sub(lambda _: "\n\n".join(box(room, pages.get(room, {})) for room in order()), markdown)
    return REFERENCE.sub(lambda _: "\n\n".join(map(directives, order())), markdown)


def order() -> tuple[str, ...]:
    """The rooms from the ground up: `ORDER` of tests/test_house.py."""
    for node in ast.parse((ROOT / "tests" / "test_house.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER":
            return tuple(ast.literal_eval(node.value))
    raise ValueError("tests/test_house.py has no ORDER")


def pages_of(nav: list[Any]) -> dict[str, dict[str, str]]:
    """Title and file of the pages in the section that names a room, by room."""
    found: dict[str, dict[str, str]] = {}
    for section in nav:
        for title, inside in section.items():
            if isinstance(inside, list):
                pages = {name: file for page in inside for name, file in page.items()}
                found |= dict.fromkeys(rooms_in(title), pages)
    return found


def rooms_in(title: str) -> list[str]:
    """The rooms that a section's title names: ``data, augment``."""
    return [room for room in title.split(", ") if room in order()]


def files(room: str) -> list[Path]:
    """The Python files of a room: its own, then the files of its folders."""
    path = PACKAGE / room
    if not path.is_dir():
        return [path.with_suffix(".py")]
    found = [file for file in path.rglob("*.py") if file.name != "__init__.py" or file.parent != path]
    return sorted(found, key=lambda file: (file.parent, file.name))


def box(room: str, pages: dict[str, str]) -> str:
    """A box that opens: the room's sentence; its pages, and its files."""
    path = PACKAGE / room
    home = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    name = f"{room}/" if path.is_dir() else home.name
    lines = [", ".join(f"[{title}]({file})" for title, file in pages.items()), ""] if pages else []
    if path.is_dir():
        lines += ["| file | contents |", "|---|---|", *(row(file, path) for file in files(room))]
    inside = "\n".join(f"    {line}".rstrip() for line in lines)
    title = sentence(home).replace('"', "'")
    return f'??? abstract "`{name}` {title}"\n\n{inside}'


def row(file: Path, room: Path) -> str:
    """A file with its sentence. A folder stands before its files, with the sentence of its `__init__`."""
    name = file.relative_to(room).as_posix()
    shown = name.removesuffix("__init__.py")
    return f"| `{shown}` | {sentence(file).replace('|', '&#124;')} |"


def sentence(file: Path) -> str:
    """The first paragraph of a file's docstring. Raises ValueError for a file without one."""
    text = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
    if not text:
        raise ValueError(
            f"{file.relative_to(PACKAGE.parent)} has no docstring: write one, whose first line the docs show"
        )
    return " ".join(text.partition("\n\n")[0].split())


def directives(room: str) -> str:
    """A heading with the room's sentence, and a directive for each of its files."""
    if not (PACKAGE / room).is_dir():
        return f"## {room}\n\n::: equipoise.{room}"
    lines = [f"## {room} {{ #equipoise.{room} }}", sentence(PACKAGE / room / "__init__.py")]
    lines += [f"::: {module}" for module in modules(room)] if room not in ON_OTHER_PAGES else []
    return "\n\n".join(lines)


def modules(room: str) -> Iterator[str]:
    for file in files(room):
        yield ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
