"""Tables in pages that the package makes, so that what is added to it is in them.

``<<< networks`` on a line of its own becomes the published pairs of networks, with what they cost.
``<<< components MODULE`` becomes the components that MODULE names in ``__all__``: each with its defaults, and the first
line of its docstring.
"""

import dataclasses
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # `mkdocs` does not look where it is called

NETWORKS = re.compile(r"^<<< networks$", re.MULTILINE)
COMPONENTS = re.compile(r"^<<< components (?P<module>[\w.]+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    markdown = COMPONENTS.sub(lambda found: components(found["module"]), markdown)
    return NETWORKS.sub(lambda _: networks(), markdown)


def components(name: str) -> str:
    module = import_module(name)
    found = (getattr(module, name) for name in module.__all__)
    made = [cls for cls in found if dataclasses.is_dataclass(cls) and not inspect.isabstract(cls)]
    rows = (f"| `{cls()!r}` | {inspect.getdoc(cls).splitlines()[0]} |" for cls in made)
    return "\n".join(("| settings | value |", "|---|---|", *rows))


def networks() -> str:
    from equipoise.models.describe import markdown
    from equipoise.models.zoo import ZOO

    return markdown(ZOO)
