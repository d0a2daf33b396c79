"""Tables of the fields of components, made from their types, defaults and docstrings.

``<<< fields MODULE.CLASS`` becomes the table of one component, ``<<< fields MODULE.CLASS AS game`` the same with names
as in ``game.reuse``. ``<<< settings`` becomes all components, by kind.

A field's text is its line of the docstring, ``name: what it is``, of the class or of a base class. A field that the
first paragraph names, as a formula does, may do without. A component without a docstring, or a field that no docstring
names, ends the build.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # `mkdocs` does not look where it is called

FIELDS = re.compile(r"^<<< fields (?P<cls>[\w.]+)(?: AS (?P<prefix>[\w.]+))?$", re.MULTILINE)
SETTINGS = re.compile(r"^<<< settings$", re.MULTILINE)
LINE = re.compile(r"^(?P<names>\w+(?:, \w+)*): +(?P<text>\S.*(?:\n(?: {4}.*)?)*)", re.MULTILINE)
"""A field in a docstring: its names, and its text with the indented lines after it."""
PAGES = {
    "data": "data.md",
    "generator": "models.md",
    "discriminator": "models.md",
    "game": "games.md",
    "head": "heads.md",
    "loss": "losses.md",
    "terms": "config.md#terms",
    "g_normalizer": "normalizers.md",
    "d_normalizer": "normalizers.md",
    "constraints": "constraints.md",
    "augment": "augment.md",
    "growth": "training_rules.md#growth",
    "g_optim": "optimisers.md",
    "d_optim": "optimisers.md",
    "ema": "optimisers.md#ema",
    "d_steps": "training_rules.md#several-updates-of-d",
    "dequantise": "data.md#dequantisation",
    "g_batches": "distributed.md#more-images-for-g",
    "compute": "speed.md",
    "start": "training_rules.md#transfer-with-frozen-layers",
    "report": "runs.md#reports",
}
"""The page that a field of the config is explained on. The build checks the links."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    markdown = FIELDS.sub(lambda found: fields(class_of(found["cls"]), found["prefix"] or ""), markdown)
    return SETTINGS.sub(lambda _: settings(), markdown)


def class_of(path: str) -> type:
    module, _, name = path.rpartition(".")
    cls: type = resolve_name(f"{module}:{name}")
    return cls


def fields(cls: type, prefix: str = "") -> str:
    """The table of a component's fields: name, what it takes, default, meaning."""
    before = f"{prefix}." if prefix else ""
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    rows = (
        f"| {linked(cls, name, before)} | {takes(cls, name)} | {default(cls, name)} | {meaning(cls, name)} |"
        for name in names
    )
    return "\n".join(("| field | takes | default | meaning |", "|---|---|---|---|", *rows))


def linked(cls: type, name: str, before: str) -> str:
    """The name of a field; of a config's, with the page about it."""
    whole = cls.__name__ == "TrainConfig" and name in PAGES
    return f"[`{name}`]({PAGES[name]})" if whole else f"`{before}{name}`"


def takes(cls: type, name: str) -> str:
    """The type of a field, in the words of the message for a wrong value."""
    from equipoise.core.mistakes import options_of, phrase

    return escaped(phrase(options_of(cls, name)))


def default(cls: type, name: str) -> str:
    """The default as a config's text has it: components with the fields that differ from theirs. Empty: required."""
    info = cls.__pydantic_fields__[name]  # type: ignore[attr-defined]
    return "" if info.is_required() else f"`{short(info.default)}`"


def short(value: object) -> str:
    """A value as the command line takes it: components with the fields that differ from their defaults alone."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(short, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if not dataclasses.is_dataclass(value):
        return f"{value:g}" if isinstance(value, float) else str(value)
    known = type(value).__pydantic_fields__  # type: ignore[attr-defined]
    given = {name: getattr(value, name) for name in known}
    changed = [f"{name}={short(item)}" for name, item in given.items() if item != known[name].default]
    return f"{type(value).__name__}({', '.join(changed)})" if changed else type(value).__name__


def meaning(cls: type, name: str) -> str:
    """The field's line of a docstring, or the first line of one that names it. Raises ValueError for neither."""
    docstrings = list(docs(cls))
    for doc in docstrings:
        for found in LINE.finditer(doc):
            if name in found["names"].split(", "):
                return escaped(" ".join(found["text"].split()))
    if any(re.search(rf"\b{name}\b", doc.partition("\n\n")[0]) for doc in docstrings):
        return "as above"
    raise ValueError(
        f"{cls.__name__}.{name} has no line in a docstring: add `{name}: what it is` to {cls.__name__}'s, with its unit"
    )


def docs(cls: type) -> Iterator[str]:
    """The docstrings of a component and of the component's bases. Raises ValueError for a component without one."""
    for kind in cls.__mro__:
        if kind is cls and not described(kind):
            raise ValueError(f"{cls.__name__} has no docstring: write one, whose first line the documentation shows")
        if described(kind) and kind is not object:
            yield re.sub(r"(?<=\S) {2,}(?=\w+: )", "\n", inspect.cleandoc(vars(kind)["__doc__"]))  # two fields a line


def described(cls: type) -> bool:
    """Whether somebody wrote the docstring: a dataclass without one gets its signature."""
    text = vars(cls).get("__doc__") or ""
    return bool(text) and not text.startswith(f"{cls.__name__}(")


def escaped(text: str) -> str:
    """Text for a cell of a table: `|` and, outside code, `<` and `*` as characters."""
    parts = text.replace("``", "`").split("`")
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("<", "&lt;").replace("*", "&#42;")
    return "`".join(parts).replace("|", "&#124;")


def settings() -> str:
    """All components by kind, in the order of the config's fields; kinds inside other components come last."""
    kinds: dict[type, list[type]] = {}
    for cls in known():
        kinds.setdefault(kind_of(cls), []).append(cls)
    fields_of = {kind: homes(kind) for kind in kinds}
    names = list(of_config())
    ordered = sorted(kinds, key=lambda kind: names.index(fields_of[kind][0]) if fields_of[kind] else len(names))
    return "\n\n".join(section(kind, fields_of[kind], kinds[kind]) for kind in ordered)


def known() -> list[type]:
    """The library's components, by name within a room, without the config itself."""
    from equipoise.config import TrainConfig, components

    return [cls for cls in components().values() if cls is not TrainConfig]


def kind_of(cls: type) -> type:
    """The most general class of the library that `cls` is: GANLoss, Term, Normalizer, ...; itself without a base."""
    return [kind for kind in cls.__mro__ if kind.__module__.startswith("equipoise.")][-1]


def of_config() -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(class_of("equipoise.config.TrainConfig")))  # type: ignore[arg-type]


def homes(kind: type) -> list[str]:
    """The fields of a config that take a value of this kind, alone or in a list."""
    from equipoise.core.mistakes import items, options_of

    def taken(name: str) -> list[Any]:
        options = options_of(class_of("equipoise.config.TrainConfig"), name)
        return [hint for hint, _ in (*options, *items(options))]

    return [name for name in of_config() if any(hint is kind for hint in taken(name))]


def section(kind: type, homes: list[str], classes: list[type]) -> str:
    """A kind with the fields that take it, and a table for each of its components."""
    heading = ", ".join(f"`{name}`" for name in homes) or f"`{kind.__name__}`"
    link = next(
        (f"\n\n[When to use which, and in your own loop]({PAGES[name]})." for name in homes if name in PAGES), ""
    )
    return "\n\n".join((f"## {heading}{link}", *(entry(cls) for cls in classes)))


def entry(cls: type) -> str:
    """A component: name, first paragraph of its docstring, fields."""
    first = " ".join(next(docs(cls)).partition("\n\n")[0].split())
    table = [fields(cls)] if dataclasses.fields(cls) else []  # type: ignore[arg-type]
    return "\n\n".join((f"### `{cls.__name__}`", escaped(first), *table))
