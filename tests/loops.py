"""One test case that goes through many values: cheap checks need no case, no line and no process each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch

__all__ = ["for_each", "loop_over"]

Test = Callable[..., None]
FAILURES = (Exception, pytest.fail.Exception)
"""What a failed check raises; `pytest.raises` that saw nothing raises the second."""


def for_each(values: Iterable[Any], ids: Callable[[Any], object] = repr) -> Callable[[Callable[[Any], None]], Test]:
    """Decorate ``test(value)``: one test that calls it for each value. Every failure names its value.

    ids: the name of a value.
    """
    values = list(values)

    def decorate(test: Callable[[Any], None]) -> Test:
        return looped(test, lambda: ((ids(value), (value,), {}) for value in values), ())

    return decorate


def loop_over(names: str | Sequence[str], values: Iterable[Any], ids: Any = None) -> Callable[[Test], Test]:
    """``pytest.mark.parametrize`` in one test case: every value is tried, and every failure is named.

    Each value starts from the same state of torch's generator, and has a `tmp_path`, `monkeypatch` and `capsys` of its
    own. Other fixtures are made once, for all values: a test that changes them, or that skips some values, needs
    `parametrize`. Two of these decorators go through the product.

    ids: a function of an argument, or a list of names.
    """
    of_one = isinstance(names, str) and "," not in names
    split = tuple(n.strip() for n in names.split(",")) if isinstance(names, str) else tuple(names)
    values = list(values)
    listed = None if ids is None or callable(ids) else list(ids)

    def cases() -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        for i, value in enumerate(values):
            arguments = dict(zip(split, (value,) if of_one else value, strict=True))
            if listed is None:
                name = ", ".join(f"{k}={ids(v) if ids else repr(v)}" for k, v in arguments.items())
            else:
                name = str(listed[i])
            yield name, (), arguments

    return lambda test: looped(test, cases, split)


def looped(test: Test, cases: Callable[[], Iterable[tuple[str, tuple[Any, ...], dict[str, Any]]]], given: Any) -> Test:
    """One test: `test` once with the arguments of each of the `cases` (name, positions, keywords).

    given: names of the keywords; none if there are positions. The other arguments of `test` remain, for pytest to fill.
    """

    def through_all(**fixtures: Any) -> None:
        tried, failed = 0, []
        for name, arguments, keywords in cases():
            tried += 1
            torch.manual_seed(0)
            with fresh(fixtures, str(tried)) as own:
                try:
                    test(*arguments, **keywords, **own)
                except FAILURES as error:
                    error.add_note(f"in the case of {name}")
                    failed.append(error)
        assert tried, "no values"
        if len(failed) == 1:
            raise failed[0]
        if failed:
            raise BaseExceptionGroup(f"{len(failed)} of {tried} cases fail", failed)

    rest = [p for p in inspect.signature(test).parameters.values() if p.name not in given] if given else []
    through_all.__signature__ = inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in rest])
    through_all.__name__, through_all.__doc__, through_all.__module__ = test.__name__, test.__doc__, test.__module__
    through_all.pytestmark = list(getattr(test, "pytestmark", []))
    return through_all


@contextmanager
def fresh(fixtures: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The fixtures for one value: a folder `name` in `tmp_path`, patches that end with it, nothing printed yet."""
    own = dict(fixtures)
    with ExitStack() as stack:
        if "tmp_path" in own:
            own["tmp_path"] = own["tmp_path"] / name
            own["tmp_path"].mkdir()
        if "monkeypatch" in own:
            own["monkeypatch"] = stack.enter_context(own["monkeypatch"].context())
        if "capsys" in own:
            own["capsys"].readouterr()
        yield own
