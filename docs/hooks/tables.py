"""Tables in pages that the package makes, so that what is added to it is in them.

``<<< networks`` on a line of its own becomes the published pairs of networks, with what they cost.
``<<< components MODULE`` becomes the components that MODULE names in ``__all__``: each with its defaults, and the first
line of its docstring. ``<<< components MODULE OF BASE`` shows the kind ``MODULE.BASE`` alone. A component without a
docstring ends the build.
``<<< checks`` becomes the configs that a component refuses, from the docstrings of the components' own `check`, and
``<<< contradictions`` the settings of one component that it refuses, from the docstrings of `__post_init__`. A
paragraph of such a docstring is a row: "Raises ValueError for CASE: REASON. FIX."
``<<< moved`` becomes the fields of a config that have moved, with their new names.
"""

import dataclasses
import inspect
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # `mkdocs` does not look where it is called

NETWORKS = re.compile(r"^<<< networks$", re.MULTILINE)
COMPONENTS = re.compile(r"^<<< components (?P<module>[\w.]+)(?: OF (?P<base>\w+))?$", re.MULTILINE)

REFUSALS = re.compile(r"^<<< (?P<table>checks|contradictions)$", re.MULTILINE)
MOVED = re.compile(r"^<<< moved$", re.MULTILINE)
METHODS = {"checks": "check", "contradictions": "__post_init__"}
SAYS = "Raises ValueError for "


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    markdown = COMPONENTS.sub(lambda found: components(found["module"], found["base"] or "object"), markdown)
    markdown = REFUSALS.sub(lambda found: refusals(METHODS[found["table"]]), markdown)
    markdown = MOVED.sub(lambda _: moved(), markdown)
    return NETWORKS.sub(lambda _: networks(), markdown)


def components(name: str, base: str = "object") -> str:
    module = import_module(name)
    kind = getattr(module, base, object)
    found = (getattr(module, name) for name in module.__all__)
    made = [cls for cls in found if dataclasses.is_dataclass(cls) and not inspect.isabstract(cls)]
    rows = (f"| `{call(cls)}` | {first_line(cls)} |" for cls in made if issubclass(cls, kind))
    return "\n".join(("| settings | value |", "|---|---|", *rows))


def call(cls: Any) -> str:
    """A component with its defaults; a field without a default has its name alone."""
    required = [name for name, info in cls.__pydantic_fields__.items() if info.is_required()]
    return f"{cls.__name__}({', '.join((*required, '...'))})" if required else repr(cls())


def first_line(cls: type) -> str:
    """Raises ValueError for a class without a docstring; a dataclass without one gets its signature."""
    text = vars(cls).get("__doc__") or ""
    if not text or text.startswith(f"{cls.__name__}("):
        raise ValueError(f"{cls.__name__} has no docstring: write one, whose first line the documentation shows")
    return text.splitlines()[0].replace("<-", "&lt;-")


@cache
def networks() -> str:
    from equipoise.models.describe import markdown
    from equipoise.models.zoo import ZOO

    return markdown(ZOO)


def refusals(method: str) -> str:
    """The table of refusals in `method` of all components: a row for each paragraph of its docstring."""
    rows = [f"| {called(cls)} | {case} |" for cls in owners(method) for case in cases(cls, method)]
    return "\n".join(("| component | refuses: why, and the way out |", "|---|---|", *rows))


def owners(method: str) -> list[type]:
    """The components and their base classes with a `method` of their own."""
    from equipoise.config import TrainConfig
    from equipoise.config import components as known

    kinds = (cls for kind in known().values() if kind is not TrainConfig for cls in kind.__mro__)
    return list(dict.fromkeys(cls for cls in kinds if method in vars(cls)))


def called(cls: type) -> str:
    return f"any `{cls.__name__}`" if inspect.isabstract(cls) else f"`{cls.__name__}`"


def cases(cls: type, method: str) -> list[str]:
    """The paragraphs of the docstring, each without its beginning. Raises ValueError for another form."""
    paragraphs = [" ".join(text.split()) for text in (inspect.getdoc(vars(cls)[method]) or "").split("\n\n")]
    for text in paragraphs:
        if not text.startswith(SAYS):
            raise ValueError(f"{cls.__name__}.{method}: expected {SAYS + 'CASE: REASON. FIX.'!r}, got {text!r}")
    return [text.removeprefix(SAYS) for text in paragraphs]


def moved() -> str:
    from equipoise.config import MOVED as NEW

    rows = (f"| `{old}` | `{new}` |" for old, new in NEW.items())
    return "\n".join(("| before | now |", "|---|---|", *rows))
