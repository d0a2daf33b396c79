"""The house style of docstrings, in the reference: fields as a list, `<w, h>` as text, components with fields."""

import re
from typing import Any

import griffe

FIELD = re.compile(r"^(\w+(?:, \w+)*): +(?=\S)")
TAG = re.compile(r"(`[^`]*`)|<(?=\w)")


class HouseStyle(griffe.Extension):
    """Griffe calls its methods for what it reads."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """A `component` is a dataclass: its fields are the parameters of its constructor."""
        for decorator in cls.decorators:
            if str(decorator.value) == "component":
                decorator.value = griffe.ExprName("dataclasses.dataclass")

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites a docstring in Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """``name: what it is`` starts an item of a list, and `<` outside code is a character.

    Continuations of a field are indented already, as Markdown wants them. Other indented lines are code.
    """
    lines: list[str] = []
    inside = code = False  # a field, a block of code
    for line in text.splitlines():
        field = FIELD.match(line)
        indented = line.startswith("    ")
        code = indented and not inside and (code or not lines or not lines[-1])
        if field:
            lines += [""] if lines and lines[-1] and not inside else []
            line = f"- `{field[1]}`: {line[field.end() :]}"
        elif inside and line and not indented and lines[-1]:
            lines.append("")
        inside = bool(field) or (inside and (indented or not line))
        lines.append(line if code else TAG.sub(lambda found: found[1] or "&lt;", line))
    return "\n".join(lines)
