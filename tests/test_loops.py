"""Loops in place of cases: every value is tried from the same start, and every failure is named."""

from __future__ import annotations

import pytest
import torch
from loops import for_each, loop_over


def failures(test):
    with pytest.raises(BaseExceptionGroup, match="cases fail") as caught:
        test()
    return [(type(error), *error.__notes__) for error in caught.value.exceptions]


def test_every_failure_is_named_and_does_not_end_the_loop():
    tried = []

    @for_each([0, 1, 2, 3])
    def odd(value):
        tried.append(value)
        if value == 0:
            pytest.fail("zero")  # no Exception
        assert value % 2

    assert failures(odd) == [(pytest.fail.Exception, "in the case of 0"), (AssertionError, "in the case of 2")]
    assert tried == [0, 1, 2, 3]


def test_one_failure_is_raised_as_it_is():
    @for_each("ab", ids=str.upper)
    def is_a(value):
        assert value == "a"

    with pytest.raises(AssertionError, match="==") as caught:
        is_a()
    assert caught.value.__notes__ == ["in the case of B"]


def test_two_loops_are_the_product_with_equal_random_numbers_and_a_fixture():
    seen = []

    @loop_over(("a", "b"), [(1, 2), (3, 4)], ids=["first", "second"])
    @loop_over("c", iter("xy"))
    def test(a, b, c, fixture):
        seen.append((a, b, c, fixture, torch.rand(1).item()))

    test(fixture=7)
    assert [case[:4] for case in seen] == [(1, 2, "x", 7), (1, 2, "y", 7), (3, 4, "x", 7), (3, 4, "y", 7)]
    assert len({number for *_, number in seen}) == 1


@loop_over("value", [1, 2])
def test_what_a_value_leaves_is_gone_for_the_next(value, tmp_path, monkeypatch, capsys):
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setattr(torch, "of_a_value", value, raising=False)
    print(value)
    assert capsys.readouterr().out == f"{value}\n"
    print("left")


def test_patches_end_with_the_last_value():
    assert not hasattr(torch, "of_a_value")


def test_no_values_is_an_error():
    with pytest.raises(AssertionError, match="no values"):
        for_each([])(print)()
