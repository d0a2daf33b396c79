"""Schedules: pure functions of images seen."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.config import components
from equipoise.core import schedules
from equipoise.core.grammar import parse
from equipoise.core.schedules import After, Cosine, Linear, Steps, at
from equipoise.rules import Adam

COMPONENTS = [c for name in schedules.__all__ if dataclasses.is_dataclass(c := getattr(schedules, name))]
ALL = [c for c in COMPONENTS if {"start", "end"} <= {field.name for field in dataclasses.fields(c)}]
every_schedule = pytest.mark.parametrize("schedule", ALL, ids=lambda c: c.__name__)
values = st.floats(-1e3, 1e3)


@every_schedule
@given(start=values, end=values, kimg=st.floats(0.001, 1e4), beyond=st.floats(1, 10))
def test_goes_from_start_to_end_and_stays(schedule, start, end, kimg, beyond):
    s = schedule(start=start, end=end, kimg=kimg)
    last = kimg * 1000
    assert s(0) == pytest.approx(start, rel=1e-9, abs=1e-9)
    assert s(last) == pytest.approx(end, rel=1e-9, abs=1e-9)
    assert s(last * beyond) == pytest.approx(end, rel=1e-9, abs=1e-9)
    assert s(last / 2) == pytest.approx((start + end) / 2, rel=1e-9, abs=1e-6)  # both are symmetric


@every_schedule
@given(a=st.floats(0, 2000), b=st.floats(0, 2000))
def test_moves_one_way(schedule, a, b):
    s, (earlier, later) = schedule(start=1.0, end=0.0, kimg=1.0), sorted((a, b))
    assert 1 >= s(earlier) >= s(later) >= 0


def test_a_quarter_of_the_way():
    """A straight line, and (1 + cos(π/4)) / 2."""
    assert Linear(start=8.0, end=0.0, kimg=1.0)(250) == 6
    assert Cosine(start=1.0, end=0.0, kimg=1.0)(250) == pytest.approx((1 + 0.5**0.5) / 2)


@every_schedule
def test_kimg_is_positive(schedule):
    with pytest.raises(ValueError, match="kimg"):
        schedule(start=0.0, end=1.0, kimg=0.0)


def test_a_constant_a_component_and_a_function_are_schedules():
    assert at(0.5, 10**6) == 0.5
    assert at(Linear(start=0.0, end=1.0, kimg=1.0), 500) == 0.5
    assert at(lambda nimg: nimg / 2, 500) == 250


@every_schedule
@given(nimg=st.integers(0, 5000))
def test_after_is_another_schedule_that_begins_late(schedule, nimg):
    late = After(schedule=(s := schedule(start=8.0, end=2.0, kimg=2.0)), kimg=1.5)
    assert late(nimg) == (8 if nimg <= 1500 else s(nimg - 1500))


def test_after_as_text_and_of_constants():
    lr = "After(schedule=Linear(start=2e-4, end=0, kimg=16), kimg=128)"
    adam = parse(f"Adam(lr={lr})", components())
    assert adam == Adam(lr=After(Linear(2e-4, 0.0, 16.0), 128.0))
    assert [at(adam.lr, 1000 * kimg) for kimg in (0, 128, 136, 144, 200)] == [2e-4, 2e-4, 1e-4, 0, 0]
    assert After(schedule=0.5, kimg=1.0)(10**6) == 0.5
    with pytest.raises(ValueError, match="not negative"):
        Adam(lr=After(schedule=Linear(-1.0, 0.0, 1.0), kimg=1.0))


def test_steps():
    """The value changes after the named number of images, and not with it."""
    lr = "Steps(start=1e-3, steps=[[4.2, 2e-3], [5.4, 3e-3]])"
    adam = parse(f"Adam(lr={lr})", components())
    assert adam == Adam(lr=Steps(1e-3, ((4.2, 2e-3), (5.4, 3e-3))))
    assert [at(adam.lr, n) for n in (0, 4200, 4201, 5400, 5401, 10**7)] == [1e-3, 1e-3, 2e-3, 2e-3, 3e-3, 3e-3]
    assert Steps(1e-3, ())(10) == 1e-3
    for steps in (((5.0, 1.0), (4.0, 2.0)), ((4.0, 1.0), (4.0, 2.0))):
        with pytest.raises(ValueError, match=r"must have ascending kimg, each once, such as 'steps="):
            Steps(1e-3, steps)
