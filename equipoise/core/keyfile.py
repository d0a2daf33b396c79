"""Settings in YAML or JSON: fields and their values.

    recipe: sngan_digits
    loss: Hinge
    terms: [R1(gamma=5), R2]
    g_optim: {lr: 1e-4}

A key is a field, or a dotted path; a mapping holds the fields of what it belongs to, or one component and its fields,
as ``{R1: {gamma: 5}}``. A text is read as on the command line, and so are numbers and words of YAML: ``1e-4`` is a
number, ``no`` is a word and no ``false``.
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

    value: a text, or what JSON has: a number, true, false, null, a list, a mapping.
    line: where it begins, from 1; None in JSON.
    source: of a list in brackets, its text, for a comma in ``R1(gamma=5, every=4)`` is none of the list.
    """

    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    line: int | None = None
    source: str | None = None


class Change(NamedTuple):
    """A field's new value, and the line of it."""

    value: Any
    line: int | None


def read_keys(path: Path) -> dict[str, Node]:
    """The top level of a ``.yaml``, ``.yml`` or ``.json`` file.

    Raises:
        ValueError: that names the file and, where it is known, the line, for what cannot be read or is no mapping.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        text = read_file(path).decode("utf-8-sig")  # editors of Windows begin a file with a mark
        require_readable(text)
        node = read_json(text) if path.suffix.lower() == ".json" else read_yaml(text)
    except RecursionError:
        raise ValueError(f"cannot read {path}: expected at most {DEEPEST} values inside one another") from None
    except (OSError, ValueError) as error:  # bytes that are no text are a ValueError
        raise ValueError(f"cannot read {path}: {error}") from None
    if not isinstance(node.value, dict) or not node.value:
        given = "nothing" if node.value in (None, "", {}) else "a list" if isinstance(node.value, list) else "one value"
        example = '{"recipe": "quickstart", "loss": "Hinge"}' if path.suffix.lower() == ".json" else "loss: Hinge"
        raise ValueError(f"cannot read {path}: expected fields and their values, such as {example}, got {given}")
    return node.value


def require_readable(text: str) -> None:
    """Raises ValueError for text that is so long, or brackets so deep, that readers would take minutes."""
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
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {shown(key)} is given twice")
            found[key] = value
        return found

    return of_json(json.loads(text, object_pairs_hook=once) if text.strip() else None)


def of_json(value: Any) -> Node:
    if isinstance(value, dict):
        return Node({key: of_json(item) for key, item in value.items()})
    return Node([of_json(item) for item in value] if isinstance(value, list) else value)


def read_yaml(text: str) -> Node:
    """The node of a YAML text. A scalar in it is its text, which has the types of the command line, not of YAML 1.1."""
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
    except yaml.YAMLError as error:  # a sign that YAML does not have
        raise ValueError(" ".join(str(error).split())) from None
    extra = next(rest, None)
    if extra is not None:
        raise ValueError(f"line {extra.start_mark.line + 1}: expected one document, and here another begins")
    return node


def mend(problem: str) -> str:
    """What to do about a mistake that is often made."""
    if "'\\t'" in problem:
        return ". Indent with spaces, not with tabs"
    if "escape" in problem:
        return ". Put a text with backslashes in single quotes, or in none"
    return ". Put a text with such a sign in single quotes"


def of_yaml(event: Any, rest: Iterator[Any], text: str, depth: int) -> Node:
    """The node that begins with `event`. Takes its other events from `rest`."""
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
        ValueError: with the line and the key, for a value that cannot be read, or a path given twice.
    """
    changes: dict[str, Change] = {}
    for key, node in keys.items():
        where = f"{path}.{key}" if path else key
        if isinstance(node.value, dict) and not names_component(node.value, known):
            found = changes_of(node.value, known, where)
        else:
            try:
                found = {where: Change(value_of(node, known), node.line)}
            except ValueError as error:
                raise ValueError(f"{place(where, node.line)}: {error}") from None
        twice = next((each for each in found if each in changes), None)
        if twice is not None:
            raise ValueError(f"{place(twice, found[twice].line)}: it is given twice")
        changes |= found
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
    """Whether YAML has taken a comma in a call for one between values: it reads ``R1(gamma=5`` as the first."""
    return isinstance(node.value, str) and node.value.count("(") > node.value.count(")")
