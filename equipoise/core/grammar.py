"""Configs as text: parse values without executing anything, change fields by path, write a config as its call.

`known` maps names to components: the caller decides which names a text may use.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.dataclasses import is_pydantic_dataclass

from .mistakes import defaults, moved_to, no_field, suggest
from .nesting import DEEPEST, LONGEST, check_text, shown
from .quoting import as_python, as_saved, is_windows_path

__all__ = [
    "as_argument",
    "build",
    "changed",
    "components_in",
    "differences",
    "made_of",
    "override",
    "parse",
    "suggest",
    "to_text",
]

# ---- text -> values --------------------------------------------------------------------------------------


def parse(text: str, known: Mapping[str, Any]) -> Any:
    """Parse a literal, a word, a component or a component's call. Nothing else is evaluated.

    ``Hinge`` means ``Hinge()``; true, false and none are understood; a list becomes a tuple. Text that is not an
    expression, such as a path, is returned unchanged. Windows paths may have single backslashes, quoted or not.

    Raises:
        ValueError: for an unknown component, a wrong field, or anything but literals and calls; and for text that is
            too long or nested too deep.
    """
    source = as_python(text) if len(text) <= LONGEST else text
    check_text(source)
    if is_windows_path(text.strip()):
        return text
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except SyntaxError:
        if "(" in text:
            raise ValueError(f"cannot read {shown(text)}: expected a literal or Component(key=value, ...)") from None
        return text
    if isinstance(tree, (ast.BinOp, ast.Attribute)) and "(" not in text:
        return text  # runs/a, digits.zip
    return _build(tree, text, known)


def _build(node: ast.expr, text: str, known: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_build(item, text, known) for item in items)
        case ast.Name(id=word) if word in known:
            return _make(known[word], word, {})
        case ast.Name(id=word):
            return {"true": True, "false": False, "none": None}.get(word, word)
        case ast.Call(func=ast.Name(id=name)) if name not in known:
            raise ValueError(f"unknown component {shown(name)}{suggest(name, known)}")
        case ast.Call(func=ast.Name(id=name), args=positional, keywords=keywords):
            fields = {k.arg: _build(k.value, text, known) for k in keywords if k.arg is not None}
            if positional or len(fields) < len(keywords):  # **, or a field given twice
                raise ValueError(
                    f"cannot read {shown(text)}: name the fields of {name}, each once, as in {name}(key=value)"
                )
            return _make(known[name], name, fields)
    raise ValueError(f"cannot read {shown(text)}: expected a literal or Component(key=value, ...)")


def _make(cls: Any, name: str, fields: Mapping[str, Any]) -> Any:
    try:
        return cls(**fields)
    except TypeError as error:  # from a user's own plain dataclass
        raise ValueError(f"{name}: {error}") from None


# ---- changes by path -------------------------------------------------------------------------------------


def override(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of `config` with the fields at dotted paths replaced, e.g. ``{"terms.0.gamma": 5, "loss": Hinge()}``.

    All changes are made before the copy is checked, so their order does not matter.

    Raises:
        ValueError: for an unknown field, a value the field does not take, or an illegal combination.
    """
    _require_paths(changes)
    return _override(config, changes)


def build(cls: Any, changes: Mapping[str, Any]) -> Any:
    """Make a `cls` from its defaults and the fields at dotted paths, changed as in `override`.

    Raises:
        ValueError: as `override`; also for a missing field, and for a path inside a field without a default.
    """
    _require_paths(changes)
    return cls(**_changed(cls, defaults(cls), changes))


def _require_paths(changes: Mapping[str, Any]) -> None:
    for path in changes:
        if path.count(".") > DEEPEST:
            raise ValueError(f"{shown(path)} is not a path of fields: expected at most {DEEPEST} points")
        if not all(path.split(".")):
            fields = ".".join(filter(None, path.split(".")))
            fix = f"; did you mean {shown(fields)}?" if fields else ""
            raise ValueError(f"{shown(path)} is not a path: expected fields joined by points, such as d_optim.lr{fix}")


def _override(config: Any, changes: Mapping[str, Any]) -> Any:
    if isinstance(config, tuple | list):
        places = [str(index) for index in range(len(config))]
        grouped = _grouped(changes)
        for field in grouped:
            if field not in places:
                raise ValueError(f"{shown(field)} is not an index into the {len(config)} values {shown(config)}")
        pairs = zip(places, config, strict=True)
        return tuple(_within(old, grouped[place]) if place in grouped else old for place, old in pairs)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{shown(config)} has no fields, so {shown(next(iter(changes)))} cannot be set in it")
    present = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **_changed(type(config), present, changes))


def _changed(cls: Any, present: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """New values of the fields of a `cls` that `changes` touch.

    present: current values of its fields.
    """
    grouped, names = _grouped(changes), {field.name for field in dataclasses.fields(cls)}
    moved = [path for path in changes if moved_to(cls, path)]
    wrong = moved + [field for field in grouped if field not in names and field not in {p.split(".")[0] for p in moved}]
    if wrong:
        raise ValueError("\n".join(no_field(cls, name, present) for name in wrong))
    for field, inside in grouped.items():
        if "" not in inside and field not in present:
            raise ValueError(
                f"{cls.__name__}.{field} has no default, so {shown(next(iter(inside)))} cannot be set in it: give "
                f"{field} too, or a recipe to change"
            )
    return {field: _within(present.get(field), inside) for field, inside in grouped.items()}


def _grouped(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Changes by first field, then by the rest of the path: "" for the field itself."""
    grouped: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        field, _, rest = path.partition(".")
        grouped.setdefault(field, {})[rest] = value
    return grouped


def _within(old: Any, inside: Mapping[str, Any]) -> Any:
    """Replace the field itself first, then change fields inside it."""
    rest = {path: value for path, value in inside.items() if path}
    value = inside.get("", old)
    return _override(value, rest) if rest else value


# ---- values -> text --------------------------------------------------------------------------------------


def to_text(config: Any, known: Mapping[str, Any]) -> str:
    """The call that makes `config`, one field a line. `parse` reads it back.

    known: the components inside `config`, by name.

    Raises:
        ValueError: if the text would not read back as the same config (say, with a lambda for a schedule).
    """
    text = "(nested too deep to be written)"
    try:
        fields = (f"    {f.name}={getattr(config, f.name)!r},\n" for f in dataclasses.fields(config))
        text = as_saved(f"{type(config).__name__}(\n{''.join(fields)})\n")
        same = parse(text, known) == config
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise ValueError(
            "this config cannot be saved as text that reads back the same: every value in it must be a literal or a "
            f"component (a frozen dataclass), not a function or an array:\n{text}"
        )
    return text


def components_in(config: Any) -> Iterator[Any]:
    """The components of `config`, itself first, outer components before inner ones, in the order of fields."""
    todo = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, tuple):
            todo += reversed(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield value
            todo += [getattr(value, f.name) for f in reversed(dataclasses.fields(value))]


def made_of(config: Any) -> dict[str, type]:
    """Classes of the components inside `config`, itself included, by name."""
    return {type(component).__name__: type(component) for component in components_in(config)}


def differences(old: Any, new: Any) -> list[str]:
    """Differences between two configs, one a line: ``d_optim.lr: 0.0002 -> 0.0004``."""
    return [f"{path}: {before!r} -> {after!r}" for path, before, after in changed(old, new)]


def changed(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Fields in which two configs differ: dotted name, old value, new value."""
    if type(old) is type(new) and dataclasses.is_dataclass(old):
        names = [f.name for f in dataclasses.fields(old)]
        dot = f"{path}." if path else ""
        return [field for n in names for field in changed(getattr(old, n), getattr(new, n), dot + n)]
    return [] if old == new else [(path, old, new)]


def as_argument(value: Any) -> str:
    """A value as the command line takes it: components with the fields that differ from their defaults alone.

    >>> as_argument((1e-4, True, "a b"))
    '[0.0001, true, "a b"]'
    """
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_argument, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if not is_pydantic_dataclass(type(value)):
        return repr(value)
    fields = type(value).__pydantic_fields__
    own = {name: getattr(value, name) for name, info in fields.items() if getattr(value, name) != info.default}
    inner = ", ".join(f"{name}={as_argument(item)}" for name, item in own.items())
    return f"{type(value).__name__}({inner})" if inner else type(value).__name__
