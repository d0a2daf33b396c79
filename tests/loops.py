"""One test case that goes through many values: cheap checks need no case, no line and no process each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["for_each"]


def for_each(values: Iterable[Any]) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Decorate ``test(value)``: one test that calls it for each value. A failure names the value."""

    def decorate(test: Callable[[Any], None]) -> Callable[[], None]:
        def through_all() -> None:
            tried = 0
            for value in values:
                tried += 1
                try:
                    test(value)
                except BaseException as error:
                    error.add_note(f"in the case of {value!r}")
                    raise
            assert tried

        through_all.__name__, through_all.__doc__, through_all.__module__ = test.__name__, test.__doc__, test.__module__
        return through_all

    return decorate
