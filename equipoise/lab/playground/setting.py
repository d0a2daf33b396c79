"""A setting as text, in the page's address and in its fields. The grammar is the config's."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from equipoise.config import TrainConfig, override
from equipoise.core.grammar import parse, suggest
from equipoise.losses import Term

from ..points.settings import SETTINGS, Setting
from .choices import KNOBS, at, known, require_knobs, require_playable

__all__ = ["changed", "differing", "read", "setting_of", "shown", "text", "written"]

FIRST = next(iter(SETTINGS))
LONGEST = 4000
"""Most characters in a setting, and in a value of it."""


def read(query: str) -> tuple[str, TrainConfig]:
    """Read a setting such as ``setting=R1&data.of=Grid&d_optim.lr=0.0004``: one of `SETTINGS`, and changes to it.

    Raises:
        ValueError: for an unknown setting or field, a value out of range, an illegal combination, or too long a text.
    """
    if len(query) > LONGEST:
        raise ValueError(f"a setting of {len(query)} characters is too long: at most {LONGEST}")
    changes = {}
    for part in filter(None, query.split("&")):
        path, equals, value = map(unquote, part.partition("="))
        if not equals:
            raise ValueError(f"{path!r} says nothing: give FIELD=VALUE, such as loss=Hinge, joined by &")
        changes[path] = value
    name = changes.pop("setting", FIRST)
    return name, changed(setting_of(name)(), changes)


def setting_of(name: str) -> Setting:
    """The setting called `name`. Raises ValueError for an unknown name, and suggests the nearest one."""
    if name not in SETTINGS:
        raise ValueError(f"there is no setting {name!r}{suggest(name, SETTINGS)}")
    return SETTINGS[name]


def written(name: str, cfg: TrainConfig) -> str:
    """The text that `read` reads as the setting `name` with the changes that make it `cfg`."""
    changes = {"setting": name} | {path: text(value) for path, value in differing(SETTINGS[name](), cfg)}
    return "&".join(f"{path}={quote(value, safe='()[],.=')}" for path, value in changes.items())


def changed(cfg: TrainConfig, changes: Mapping[str, str]) -> TrainConfig:
    """`cfg` with the fields at dotted paths set to the values of their texts. Raises ValueError, as `read`."""
    for path, value in changes.items():
        if len(value) > LONGEST:
            raise ValueError(f"{path} has a value of {len(value)} characters, which is too long: at most {LONGEST}")
    cfg = override(cfg, {path: parse(value, known()) for path, value in changes.items()})
    require_knobs(changes)
    return require_playable(cfg)


def differing(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields in which `new` differs from `old`: dotted path and new value. A list counts as one value."""
    if type(old) is type(new) and dataclasses.is_dataclass(old):
        for f in dataclasses.fields(old):
            yield from differing(getattr(old, f.name), getattr(new, f.name), f"{path}.{f.name}" if path else f.name)
    elif old != new:
        yield path, new


def text(value: Any) -> str:
    """The text that `parse` reads as `value`. For a component: its name, and the fields that are not the default."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(text, value))}]"
    if dataclasses.is_dataclass(value):
        given = [f"{f.name}={text(getattr(value, f.name))}" for f in own_fields(value)]
        return f"{type(value).__name__}({','.join(given)})" if given else type(value).__name__
    return value if isinstance(value, str) and is_word(value) else repr(value)


def is_word(value: str) -> bool:
    """Whether `parse` reads `value` as the text itself."""
    reserved = keyword.iskeyword(value) or value in ("true", "false", "none") or value in known()
    return value.isidentifier() and not reserved


def own_fields(component: Any) -> list[dataclasses.Field[Any]]:
    """The fields of `component` whose values are not their defaults."""
    by_default = {name: info.default for name, info in type(component).__pydantic_fields__.items()}
    return [f for f in dataclasses.fields(component) if getattr(component, f.name) != by_default[f.name]]


def shown(cfg: TrainConfig) -> dict[str, Any]:
    """The content of each knob of the page: for a component its name, text, and the texts of its fields."""
    return {knob.path: form(at(cfg, knob.path)) for knob in KNOBS}


def form(value: Any) -> Any:
    if isinstance(value, tuple):
        return [form(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return {"name": "", "text": text(value)}
    fields = [{"name": f.name, "text": text(getattr(value, f.name))} for f in dataclasses.fields(value)]
    player: dict[str, str] = {"player": value.player} if isinstance(value, Term) else {}
    return {"name": type(value).__name__, "text": text(value), "fields": fields} | player
