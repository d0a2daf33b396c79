"""Components as short text: the call that makes a value, without fields at their default."""

from __future__ import annotations

from typing import Any

__all__ = ["short"]


def short(value: Any) -> str:
    """The call that makes `value`, without fields that have their default. The command line takes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(short, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    known = getattr(type(value), "__pydantic_fields__", None)
    if known is None:
        return repr(value)
    given = {name: getattr(value, name) for name in known}
    changed = [f"{name}={short(item)}" for name, item in given.items() if item != known[name].default]
    return f"{type(value).__name__}({', '.join(changed)})" if changed else type(value).__name__
