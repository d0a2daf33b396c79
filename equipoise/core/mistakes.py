"""Wrong fields of a component, in sentences: what was given, what was expected, the nearest name.

The sentence comes from the field's type, so Python and the command line give the same one. A field's type is a tree of
numbers, words, components, lists and alternatives. An alternative is a type with its rules (ranges, lengths).
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import ValidationError
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo

from .nesting import shown

__all__ = ["defaults", "explain", "moved_to", "no_field", "suggest", "suggest_kind"]

MOST_MISTAKES = 20
"""Largest number of mistakes in one message."""

Alternative = tuple[Any, tuple[Any, ...]]
"""A type and its rules."""
Place = tuple[int | str, ...]
"""A field, then indices into its lists."""


def explain(error: ValidationError, cls: type, args: Sequence[Any], named: Mapping[str, Any]) -> str:
    """The message for a `cls` that cannot be made from `args` and `named`: one line for each wrong field."""
    names = positions(cls)
    given = dict(zip(names, args, strict=False)) | dict(named)
    mistakes: dict[Place, list[Any]] = {}
    for report in error.errors(include_url=False):
        field, *inside = report["loc"] or ("",)
        if isinstance(field, int) and field < len(names):
            field = names[field]
        place = (field, *(part for part in inside if isinstance(part, int)))  # the other parts name alternatives
        mistakes.setdefault(place, []).append(report)
    # A misspelt field comes before the complaint that the right name is missing.
    order = sorted(mistakes, key=lambda place: mistakes[place][0]["type"] != "unexpected_keyword_argument")
    lines = [sentence(cls, place, mistakes[place], given, len(args)) for place in order[:MOST_MISTAKES]]
    if len(mistakes) > MOST_MISTAKES:
        lines.append(f"and {len(mistakes) - MOST_MISTAKES} more")
    return "\n".join(dict.fromkeys(lines))


def sentence(cls: type, place: Place, found: Sequence[Any], given: Mapping[str, Any], positional: int) -> str:
    """One mistake as a sentence.

    found: pydantic's reports about this place, one for each alternative of its type.
    positional: number of values given without a name.
    """
    name, field, kinds = cls.__name__, str(place[0]), {each["type"] for each in found}
    if "unexpected_keyword_argument" in kinds:
        return no_field(cls, field, defaults(cls) | dict(given))
    if "unexpected_positional_argument" in kinds:
        return f"{name} takes at most {len(positions(cls))} values, got {positional}: name its fields"
    if "multiple_argument_values" in kinds:
        return f"{name}.{field} is given twice, by its position and by its name"
    raised = next((each["ctx"]["error"] for each in found if each["type"] in ("value_error", "assertion_error")), None)
    if raised is not None and not field:
        return str(raised)  # from __post_init__, whose messages name the fields
    options, value = options_of(cls, field), given.get(field, found[0]["input"])
    if len(place) == 1 and kinds & {"missing", "missing_argument"}:
        return f"{name} needs the field {field!r}: {phrase(options)}"
    where = f"{name}.{field}"
    for index in place[1:]:
        inner = items(options, int(index))
        if not inner or not isinstance(value, list | tuple) or int(index) >= len(value):
            break  # the list is too short: the mistake is about the list, not an item
        options, value, where = inner, value[int(index)], f"{where}.{index}"
    if raised is not None:
        return f"{where}: {raised}"
    return f"{where} takes {phrase(options, 'finite_number' in kinds)}, got {given_as(value)}{nearest(options, value)}"


def positions(cls: Any) -> list[str]:
    """Fields that may be given by position, in order."""
    return [each.name for each in dataclasses.fields(cls) if each.init and not each.kw_only]


def given_as(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else shown(value)


# ---- types -> phrases ------------------------------------------------------------------------------------


def options_of(cls: type, field: str) -> list[Alternative]:
    """The alternatives of a field's type."""
    info: FieldInfo | None = fields_of(cls).get(field)
    return [] if info is None else alternatives(info.annotation, tuple(info.metadata))


def fields_of(cls: Any) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = cls.__pydantic_fields__
    return fields


def defaults(cls: type) -> dict[str, Any]:
    """Defaults of a component's fields, by field; fields without a default are left out."""
    fields = fields_of(cls).items()
    return {name: info.get_default(call_default_factory=True) for name, info in fields if not info.is_required()}


def alternatives(hint: Any, rules: tuple[Any, ...] = ()) -> list[Alternative]:
    origin = get_origin(hint)
    if origin is Annotated:
        hint, *extras = get_args(hint)
        inner = [rule for each in extras for rule in (each.metadata if isinstance(each, FieldInfo) else [each])]
        return alternatives(hint, (*rules, *inner))
    if origin in (Union, UnionType):
        return [option for part in get_args(hint) for option in alternatives(part, rules)]
    return [(hint, rules)]


def items(options: Iterable[Alternative], index: int = 0) -> list[Alternative]:
    """The alternatives of the item at `index` of a list."""
    for hint, _ in options:
        origin: Any = get_origin(hint)
        parts = get_args(hint) if origin is tuple else ()
        if parts[1:] == (Ellipsis,) or index < len(parts):
            return alternatives(parts[0 if parts[1:] == (Ellipsis,) else index])
    return []


def phrase(options: Sequence[Alternative], finite: bool = False) -> str:
    """A field's type in words: "a number of 0 or more, or a schedule"."""
    words = [described(hint, rules, finite) for hint, rules in options if hint not in (None, NoneType)]
    chosen = choices(options)
    if chosen:
        listed = ", ".join(map(repr, chosen))
        words.append(listed if len(chosen) == 1 else f"one of {listed}")
    if any(hint in (None, NoneType) for hint, _ in options):
        words.append("none")
    words = [word for word in dict.fromkeys(words) if word] or ["another value"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, or {words[-1]}"


def choices(options: Iterable[Alternative]) -> list[Any]:
    words: Any = Literal
    return [choice for hint, _ in options if get_origin(hint) is words for choice in get_args(hint)]


def described(hint: Any, rules: Sequence[Any], finite: bool) -> str:
    """One alternative in words; "" for a `Literal`, since `phrase` lists all choices together."""
    if hint in (int, float):
        number = "a whole number" if hint is int else "a finite number" if finite else "a number"
        return number + bounds(rules)
    if hint in PLAIN:
        return PLAIN[hint]
    origin: Any = get_origin(hint)
    if origin is Literal:
        return ""
    if origin is tuple:
        return list_of(hint, rules)
    if origin is Callable:
        return "a schedule"
    name = getattr(hint, "__name__", str(hint))
    return f"{'an' if name[:1] in 'AEIO' else 'a'} {name}"


PLAIN = {bool: "true or false", str: "a text", Path: "a path", Callable: "a function", tuple: "a list"}


def list_of(hint: Any, rules: Sequence[Any]) -> str:
    parts = get_args(hint)
    if parts[1:] == (Ellipsis,):
        least = next((rule.min_length for rule in rules if isinstance(rule, MinLen)), 0)
        most = next((rule.max_length for rule in rules if isinstance(rule, MaxLen)), None)
        length = f" of {least} to {most}" if most is not None else f" of {least} or more" if least else ""
        return f"a list{length}, each item {phrase(alternatives(parts[0]))}"
    phrases = [phrase(alternatives(part)) for part in parts]
    if len({*phrases}) == 1:
        return f"a list of {len(parts)}, each item {phrases[0]}"
    return f"a list of {len(parts)}: " + "; ".join(phrases)


def bounds(rules: Sequence[Any]) -> str:
    """The range of a number in words."""
    least = next((f"{rule.ge:g}" for rule in rules if isinstance(rule, Ge)), None)
    above = next((f"{rule.gt:g}" for rule in rules if isinstance(rule, Gt)), None)
    most = next((f"{rule.le:g}" for rule in rules if isinstance(rule, Le)), None)
    below = next((f"{rule.lt:g}" for rule in rules if isinstance(rule, Lt)), None)
    match least, above, most, below:
        case str(), _, str(), _:
            return f" from {least} to {most}"
        case str(), _, _, str():
            return f" from {least} to below {below}"
        case str(), _, _, _:
            return f" of {least} or more"
        case _, str(), str(), _:
            return f" above {above}, up to {most}"
        case _, str(), _, str():
            return f" above {above} and below {below}"
        case _, str(), _, _:
            return f" above {above}"
        case _, _, str(), _:
            return f" of {most} or less"
        case _, _, _, str():
            return f" below {below}"
    return ""


# ---- nearest names ---------------------------------------------------------------------------------------


def suggest(name: str, known: Iterable[str]) -> str:
    """End a message about an unknown name: suggest the nearest known name, or list all of them.

    known: names; dotted ones are fields one level down.
    """
    names = list(known)
    down = [each for each in names if "." in each]
    top = [each for each in names if "." not in each]
    last = {each.rpartition(".")[2]: each for each in reversed(down)}
    close = [each for each in down if each.rpartition(".")[2] == name]
    close = close or difflib.get_close_matches(name, top, n=1)
    close = close or [last[each] for each in difflib.get_close_matches(name, last, n=1)]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; known: {', '.join(sorted(top))}"


def no_field(cls: type, name: str, values: Mapping[str, Any]) -> str:
    """The message for a field that `cls` lacks, with its replacement if `cls.moved` or `cls.gone` names one.

    values: current values of the fields of `cls`. Their fields are suggested too.
    """
    moved = moved_to(cls, name)
    if moved:
        return f"{cls.__name__} has no field {shown(name)}: it is {moved} now"
    gone: Mapping[str, str] = getattr(cls, "gone", {})
    if name in gone:
        return f"{cls.__name__} has no field {shown(name)}: {gone[name]}"
    names = [field.name for field in dataclasses.fields(cls)]
    parts = {n: v for n, v in values.items() if n in names and dataclasses.is_dataclass(v) and not isinstance(v, type)}
    if not names:
        return f"{cls.__name__} has no field {shown(name)}: it has none"
    down = [f"{outer}.{field.name}" for outer, value in parts.items() for field in dataclasses.fields(value)]
    return f"{cls.__name__} has no field {shown(name)}{suggest(name, [*names, *down])}"


def moved_to(cls: type, path: str) -> str | None:
    """The new name of the dotted `path` if `cls.moved` lists it or a field around it; else None."""
    table: Mapping[str, str] = getattr(cls, "moved", {})
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        new = table.get(".".join(parts[:count]))
        if new is not None:
            return ".".join((new, *parts[count:]))
    return None


TRUTH = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


def nearest(options: Sequence[Alternative], value: object) -> str:
    """End a message about a value that fits none of `options`: suggest the nearest, or list the known components."""
    inner = items(option for option in options if get_args(option[0])[1:] == (Ellipsis,))
    if any(fits(hint, value) for hint, _ in inner):
        return f"; did you mean [{given_as(value)}]?"
    word = value.__name__ if isinstance(value, type) else value if isinstance(value, str) else ""
    if word.lower() in TRUTH and any(hint is bool for hint, _ in options):
        return f"; did you mean {TRUTH[word.lower()]}?"
    whole, parts = kinds_of(options), kinds_of(inner)
    texts = {str(choice): repr(choice) for choice in choices(options)}
    texts |= {name: call_of(cls) if whole else f"[{call_of(cls)}]" for name, cls in (whole or parts).items()}
    close = close_to(word, texts)
    if close:
        return f"; did you mean {texts[close]}?"
    homes = {package(hint) for hint, _ in (*options, *inner) if isinstance(hint, type)}
    known = sorted(
        name for name, cls in (whole or parts).items() if package(cls) in homes
    )  # the user's own subclasses are not listed
    return f"; known: {', '.join(known)}" if known else ""


def suggest_kind(kind: type, word: str) -> str:
    """End a message about a word that does not name a `kind`."""
    return nearest([(kind, ())], word)


CLOSE = 0.7
"""Similarity from which on a name is suggested. "photos" and Points have 0.67."""


def close_to(word: str, known: Iterable[str]) -> str | None:
    """The nearest of `known`, ignoring case."""
    folded = {each.casefold(): each for each in known}
    matches = difflib.get_close_matches(word[:100].casefold(), folded, n=1, cutoff=CLOSE) if word else []
    return folded[matches[0]] if matches else None


def fits(hint: Any, value: object) -> bool:
    """Whether `value` has the type `hint`, whatever its range."""
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint or (isinstance(hint, type) and hint not in PLAIN and isinstance(value, hint))


def kinds_of(options: Iterable[Alternative]) -> dict[str, type]:
    """Components that `options` allow, by name, including the user's own."""
    todo = [hint for hint, _ in options if isinstance(hint, type) and hint not in (*PLAIN, int, float, NoneType)]
    kinds = {}
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if is_pydantic_dataclass(cls) and not inspect.isabstract(cls):
            kinds[cls.__name__] = cls
    return kinds


def call_of(cls: type) -> str:
    needed = ", ".join(f"{name}=..." for name, info in fields_of(cls).items() if info.is_required())
    return f"{cls.__name__}({needed})"


def package(cls: type) -> str:
    """The package of `cls`. The lab counts as another one: its components are for its own experiments."""
    top, *inside = cls.__module__.split(".")
    return f"{top}.lab" if inside[:1] == ["lab"] else top
