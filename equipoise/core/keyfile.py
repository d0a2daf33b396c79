"""Settings in YAML or JSON: fields and their values.

    recipe: sngan_digits
    loss: Hinge
    terms: [R1(gamma=5), R2]
    g_optim: {lr: 1e-4}

A key is a field or a dotted path. A mapping holds the fields of its key, or one component with its fields:
``{R1: {gamma: 5}}``. Values follow the command line, not YAML: ``1e-4`` is a number, and ``no`` is a word, not false.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .files import read_file
from .grammar import parse
from .nesting import DEEPEST, LONGEST, MOST, shown

__all__ = ["Change", "Node", "changes_of", "read_keys"]


class Node(NamedTuple):
    """A value of the file.

    value: a text, a list or a mapping; from JSON also a number, true, false or null.
    line: where the value begins, from 1; None in JSON.
    source: text of a list in brackets, else None. YAML splits ``R1(gamma=5, every=4)`` at its comma; the text does not.
    """

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    line: int | None = None
    source: str | None = None


class Change(NamedTuple):
    """A field's new value, and its line in the file."""

    value: Any
    line: int | None


def read_keys(path: Path) -> dict[str, Node]:
    """The top level of a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        ValueError: for a file that is missing, unreadable or not a mapping. It names the file, and the line if known.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        text = read_file(path).decode("utf-8-sig")  # Windows editors begin a file with a byte order mark
        require_readable(text)
        node = read_json(text) if path.suffix.lower() == ".json" else read_yaml(text)
    except RecursionError:
        raise ValueError(f"cannot read {path}: expected at most {DEEPEST} values inside one another") from None
    except (OSError, ValueError) as error:  # ValueError: also bytes that are not text
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(node.value, dict) or not node.value:
        given = "nothing" if node.value in (None, "", {}) else "a list" if isinstance(node.value, list) else "one value"
        example = '{"recipe": "quickstart", "loss": "Hinge"}' if path.suffix.lower() == ".json" else "loss: Hinge"
        raise ValueError(f"cannot read {path}: expected fields and their values, such as {example}, got {given}")
    return node.value


def require_readable(text: str) -> None:
    """Raise ValueError for text so long, or brackets so deep, that parsers would take minutes."""
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text)} characters, and at most {LONGEST} were expected")
    deep = 0
    for sign in text:
        deep += (sign in "[{") - (sign in "]}" and deep > 0)
        if deep > DEEPEST:
            raise ValueError(f"expected at most {DEEPEST} brackets inside one another")


# ---- text -> nodes ---------------------------------------------------------------------------------------


def read_json(text: str) -> Node:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in pairs:
            if key in fields:
                raise ValueError(f"the key {shown(key)} is given twice")
            fields[key] = value
        return fields

    return of_json(json.loads(text, object_pairs_hook=once) if text.strip() else None)


def of_json(value: Any) -> Node:
    if isinstance(value, dict):
        return Node({key: of_json(item) for key, item in value.items()})
    return Node([of_json(item) for item in value] if isinstance(value, list) else value)


def read_yaml(text: str) -> Node:
    """Parse a YAML text. Scalars stay text: they get the command line's types later, not YAML 1.1's."""
    import yaml

    try:
        frame = (yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent)
        events = list(islice(yaml.parse(text, Loader=yaml.SafeLoader), MOST))
        if len(events) == MOST:
            raise ValueError(f"expected fewer than {MOST} keys, values and brackets")
        rest: Iterator[Any] = iter([each for each in events if not isinstance(each, frame)])
        first = next(rest, None)
        if first is None:
            return Node(None)
        node = of_yaml(first, rest, text, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{where}{error.problem or error.context}{mend(str(error.problem))}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ValueError(" ".join(str(error).split())) from None
    extra = next(rest, None)
    if extra is not None:
        raise ValueError(f"line {extra.start_mark.line + 1}: expected one document, and here another begins")
    return node


def mend(problem: str) -> str:
    """Advice for a common mistake, to end a message."""
    if "'\\t'" in problem:
        return ". Indent with spaces, not with tabs"
    if "escape" in problem:
        return ". Put a text with backslashes in single quotes, or in none"
    return ". Put a text with such a sign in single quotes"


def of_yaml(event: Any, rest: Iterator[Any], text: str, depth: int) -> Node:
    """Build the node that begins with `event`. Its other events are taken from `rest`."""
    import yaml

    line = event.start_mark.line + 1
    if depth > DEEPEST:
        raise ValueError(f"line {line}: expected at most {DEEPEST} values inside one another")
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise ValueError(f"line {line}: expected no anchors (&) and aliases (*): write the value again")
    if getattr(event, "tag", None):
        raise ValueError(f"line {line}: expected no tags, got {event.tag}: a text says what it is")
    if isinstance(event, yaml.SequenceStartEvent):
        return list_of(event, rest, text, depth)
    if isinstance(event, yaml.MappingStartEvent):
        return Node(fields_of(rest, text, depth), line)
    empty = event.style is None and event.value in ("", "~", "null", "Null", "NULL")
    return Node(None if empty else event.value, line)


def list_of(start: Any, rest: Iterator[Any], text: str, depth: int) -> Node:
    from yaml import SequenceEndEvent

    items: list[Node] = []
    while not isinstance(event := next(rest), SequenceEndEvent):
        items.append(of_yaml(event, rest, text, depth + 1))
    end: Any = event.end_mark
    source = text[start.start_mark.index : end.index] if start.flow_style else None
    return Node(items, start.start_mark.line + 1, source)


def fields_of(rest: Iterator[Any], text: str, depth: int) -> dict[str, Node]:
    from yaml import MappingEndEvent

    fields: dict[str, Node] = {}
    while not isinstance(event := next(rest), MappingEndEvent):
        key, value = of_yaml(event, rest, text, depth + 1), of_yaml(next(rest), rest, text, depth + 1)
        if not isinstance(key.value, str):
            raise ValueError(f"line {key.line}: expected a field, got a list, a mapping or nothing")
        if key.value in fields:
            first = fields[key.value].line
            raise ValueError(f"line {key.line}: the key {shown(key.value)} is given twice, in line {first} first")
        fields[key.value] = value
    return fields


# ---- nodes -> changes ------------------------------------------------------------------------------------


def changes_of(keys: Mapping[str, Node], known: Mapping[str, Any], path: str = "") -> dict[str, Change]:
    """Changes by dotted path. known: the components by name.

    Raises:
        ValueError: for an unreadable value or a path given twice. It names the line and the key.
    """
    changes: dict[str, Change] = {}
    for key, node in keys.items():
        where = f"{path}.{key}" if path else key
        if isinstance(node.value, dict) and not names_component(node.value, known):
            added = changes_of(node.value, known, where)
        else:
            try:
                added = {where: Change(value_of(node, known), node.line)}
            except ValueError as error:
                raise ValueError(f"{place(where, node.line)}: {error}") from None
        twice = next((each for each in added if each in changes), None)
        if twice is not None:
            raise ValueError(f"{place(twice, added[twice].line)}: it is given twice")
        changes |= added
    return changes


def place(key: str, line: int | None) -> str:
    return shown(key) if line is None else f"line {line}, {shown(key)}"


def names_component(value: Mapping[str, Node], known: Mapping[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in known


def value_of(node: Node, known: Mapping[str, Any]) -> Any:
    value = node.value
    if isinstance(value, str):
        try:
            return parse(value, known)
        except ValueError as error:
            hint = ". A comma in [ ] or { } begins the next value: put quotes around all of it" if is_cut(node) else ""
            raise ValueError(f"{error}{hint}") from None
    if isinstance(value, list):
        if node.source is not None and any(map(is_cut, value)):
            return parse(node.source, known)
        return tuple(value_of(item, known) for item in value)
    if isinstance(value, dict):
        if not names_component(value, known):
            raise ValueError(
                f"expected a component in place of the fields {', '.join(map(shown, value))}: give its name too, as in "
                "{R1: {gamma: 5}}"
            )
        ((name, fields),) = value.items()
        if fields.value is not None and not isinstance(fields.value, dict):
            raise ValueError(f"expected the fields of {name}, as in {{{name}: {{field: 1}}}}")
        return known[name](**{key: value_of(item, known) for key, item in (fields.value or {}).items()})
    return value


def is_cut(node: Node) -> bool:
    """Whether YAML split a call at a comma: it reads ``R1(gamma=5`` as a value of its own."""
    return isinstance(node.value, str) and node.value.count("(") > node.value.count(")")
