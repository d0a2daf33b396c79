"""Configs as text: values from text without executing it, changes by path, and the text that makes a value.

A name in a text means what the caller says: `known` holds the components by name.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .nesting import DEEPEST, check_text, shown

__all__ = ["differences", "made_of", "override", "parse", "suggest", "to_text"]

# ---- text -> values --------------------------------------------------------------------------------------


def parse(text: str, known: Mapping[str, Any]) -> Any:
    """The value that `text` denotes: a literal, a word, a component or a call of one. Evaluates nothing else.

    ``Hinge`` means ``Hinge()``; true, false and none are understood; a list is read as a tuple; text that is no
    expression (a path, say) is itself.

    Raises:
        ValueError: for an unknown component, a wrong field, or anything but literals and calls; and for text that is
            too long or nested too deep.
    """
    check_text(text)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
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
            return _make(known[word], word, {}, known)
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
            return _make(known[name], name, fields, known)
    raise ValueError(f"cannot read {shown(text)}: expected a literal or Component(key=value, ...)")


def _make(cls: Any, name: str, fields: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    try:
        return cls(**fields)
    except ValidationError as error:
        raise ValueError(_explain(error, cls, known)) from None
    except TypeError as error:  # a plain dataclass of the user's own
        raise ValueError(f"{name}: {error}") from None


def override(config: Any, changes: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    """A copy of `config` with the fields at dotted paths replaced, e.g. ``{"penalties.0.gamma": 5, "loss": Hinge()}``.

    All changes are made before the copy is checked, so their order does not matter.

    known: components that messages suggest.

    Raises:
        ValueError: for an unknown field, a value the field does not take, or an illegal combination.
    """
    grouped: dict[str, dict[str, Any]] = {}
    for path, value in changes.items():
        if path.count(".") > DEEPEST:
            raise ValueError(f"{shown(path)} is no path of fields: expected at most {DEEPEST} points")
        field, _, rest = path.partition(".")
        grouped.setdefault(field, {})[rest] = value

    def changed(old: Any, sub: dict[str, Any]) -> Any:
        whole = sub.pop("", old)  # a new value for the field itself comes before changes inside it
        return override(whole, sub, known) if sub else whole

    if isinstance(config, tuple):
        for field in grouped:
            if field not in map(str, range(len(config))):
                raise ValueError(f"{shown(field)} is not an index into the {len(config)} values {shown(config)}")
        return tuple(changed(old, grouped[str(i)]) if str(i) in grouped else old for i, old in enumerate(config))
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{shown(config)} has no fields, so {shown('.'.join(grouped))} cannot be set in it")
    names = [f.name for f in dataclasses.fields(config)]
    for field in grouped:
        if field not in names:
            raise ValueError(_no_field(type(config), field))
    values = {field: changed(getattr(config, field), sub) for field, sub in grouped.items()}
    try:
        return dataclasses.replace(config, **values)
    except ValidationError as error:
        raise ValueError(_explain(error, type(config), known)) from None


MOST_MISTAKES = 20
"""Mistakes that a message lists."""


def _no_field(cls: Any, field: str) -> str:
    """A message about a field that `cls` does not have. Its `gone`, if it has one, says what took a field's place."""
    gone = getattr(cls, "gone", {})
    hint = f": {gone[field]}" if field in gone else suggest(field, [f.name for f in dataclasses.fields(cls)])
    return f"{cls.__name__} has no field {shown(field)}{hint}"


def _explain(error: ValidationError, cls: Any, known: Mapping[str, Any]) -> str:
    """A message of pydantic's findings, a line each: where, what was given, what was expected."""
    name, names = cls.__name__, [f.name for f in dataclasses.fields(cls)]
    lines, mistakes = [], error.errors()
    for found in mistakes[:MOST_MISTAKES]:
        where = ".".join(str(part) for part in found["loc"] if isinstance(part, int) or part in names)
        match found["type"]:
            case "unexpected_keyword_argument":
                where = str(found["loc"][0])
                lines.append(_no_field(cls, where))
            case "missing" | "missing_argument":
                where = str(found["loc"][0])
                lines.append(f"{name} needs the field {where!r}")
            case "is_instance_of" | "dataclass_exact_type":
                kind = found["ctx"]["class" if found["type"] == "is_instance_of" else "class_name"]
                hint = _suggest_kind(kind, found["input"], known)
                lines.append(f"{name}.{where} takes a {kind}, got {shown(found['input'])}{hint}")
            case "tuple_type":
                lines.append(
                    f"{name}.{where} takes a list, such as '{where}=[A,B(field=1)]', got {shown(found['input'])}"
                )
            case "value_error":
                lines.append(f"{name}.{where}: {found['ctx']['error']}" if where else str(found["ctx"]["error"]))
            case "callable_type" if any(line.startswith(f"{name}.{where}: ") for line in lines):
                pass  # a schedule: the line before says that it is no number
            case _:
                lines.append(f"{name}.{where}: {found['msg']}, got {shown(found['input'])}")
    if len(mistakes) > MOST_MISTAKES:
        lines.append(f"and {len(mistakes) - MOST_MISTAKES} more")
    return "\n".join(dict.fromkeys(lines))


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the nearest of the known ones, or all."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _suggest_kind(kind: str, given: object, known: Mapping[str, Any]) -> str:
    fitting = [n for n, c in known.items() if kind in {base.__name__ for base in c.__mro__}]
    if isinstance(given, str):  # per_class is PerClass
        alike = {n.lower(): n for n in fitting}
        for close in difflib.get_close_matches(given.lower().replace("_", ""), alike, n=1, cutoff=0.8):
            return f"; did you mean {alike[close]!r}?"
    return f"; known: {', '.join(sorted(fitting))}" if fitting else ""


# ---- values -> text --------------------------------------------------------------------------------------


def to_text(config: Any, known: Mapping[str, Any]) -> str:
    """The call that makes `config`, a field a line, which `parse` reads back. known: the components that it is made of.

    Raises:
        ValueError: if it would not read back as the same config (say, with a lambda for a schedule).
    """
    text = "(nested too deep to be written)"
    try:
        fields = (f"    {f.name}={getattr(config, f.name)!r},\n" for f in dataclasses.fields(config))
        text = f"{type(config).__name__}(\n{''.join(fields)})\n"
        same = parse(text, known) == config
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise ValueError(
            "this config cannot be saved as text that reads back the same; every value in it must be a literal or a "
            f"component (a frozen dataclass), not a function or an array:\n{text}"
        )
    return text


def made_of(config: Any) -> dict[str, type]:
    """The components that `config` is made of, by name."""
    known: dict[str, type] = {}
    todo = [config]
    while todo:
        value = todo.pop()
        if isinstance(value, tuple):
            todo += value
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            known[type(value).__name__] = type(value)
            todo += [getattr(value, f.name) for f in dataclasses.fields(value)]
    return known


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two configs differ, a line each: ``d_optim.lr: 0.0002 -> 0.0004``."""
    if type(old) is type(new) and dataclasses.is_dataclass(old):
        names = [f.name for f in dataclasses.fields(old)]
        dot = f"{path}." if path else ""
        return [line for n in names for line in differences(getattr(old, n), getattr(new, n), dot + n)]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
