"""Configs that strangers wrote: any text is a value or one line, in under a second."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import time

import pytest
from fixtures import fixture
from hypothesis import given, settings
from hypothesis import strategies as st
from loops import loop_over
from typer.testing import CliRunner

from equipoise import recipes
from equipoise.cli.app import app
from equipoise.cli.options import raised_here
from equipoise.config import components, override, to_text
from equipoise.core.grammar import as_argument, parse
from equipoise.core.nesting import DEEPEST, DIGITS, LONGEST, MOST, check_text, shown
from equipoise.core.schedules import After
from equipoise.data import Digits, Few
from equipoise.recipes.quickstart import quickstart
from equipoise.rules import Adam

KNOWN = components()

TOO_DEEP = "inside one another"
HOSTILE = {
    "-" * 10_000 + "1": TOO_DEEP,
    "a" + ".a" * 20_000: TOO_DEEP,
    "1" + "+1" * 20_000: TOO_DEEP,
    "1**" * 3000 + "1": TOO_DEEP,
    "[" * 100_000: TOO_DEEP,
    "[" * 90 + "-" * 90 + "1" + "]" * 90: TOO_DEEP,  # neither alone is too deep
    "R1(" * 3000: TOO_DEEP,
    "f" + "()" * 5000: TOO_DEEP,
    "x" + "[0]" * 5000: TOO_DEEP,
    "x" + "[0" * 5000: TOO_DEEP,
    "{1:" * 5000: TOO_DEEP,
    "not " * 5000 + "x": TOO_DEEP,
    "lambda: " * 5000 + "x": TOO_DEEP,
    "lambda x, y=1: " * 5000 + "x": TOO_DEEP,  # whose commas part nothing
    "x if y else " * 5000 + "x": TOO_DEEP,
    "0if 0else " * 5000 + "0": TOO_DEEP,
    "await " * 5000 + "x": TOO_DEEP,
    "''' ' '''" + "[" * 1000 + "''' ' '''": TOO_DEEP,  # brackets between two texts, and not in a text between quotes
    "# '''\n" + "[" * 1000: TOO_DEEP,  # no text begins in a comment
    "'a\n" + "[" * 1000: TOO_DEEP,  # nor does one go on in the next line
    "f'{" + "[" * 1000 + "}'": "expected a literal or Component",
    "rF'''{" + "[" * 1000 + "}'''": "expected a literal or Component",
    "9" * 5000: f"at most {DIGITS} digits",
    "-1" + "0" * 5000: f"at most {DIGITS} digits",
    "0x" + "f" * 5000: f"at most {DIGITS} digits",  # Python reads it, and cannot show it
    "[" + "1," * (MOST // 2) + "]": f"at most {MOST} words",
    "x" * (LONGEST + 1): f"at most {LONGEST} characters",
    "a\0b": "not text in UTF-8",
    "Images(path='\udcff')": "not text in UTF-8",
}


@loop_over("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_answered_in_one_line(text, monkeypatch):
    monkeypatch.setattr(ast, "parse", lambda *_, **__: pytest.fail("it reached Python's parser, which may not survive"))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"cannot read .*{re.escape(HOSTILE[text])}") as caught:
        parse(text, KNOWN)
    assert time.perf_counter() - start < 1
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_fault_04():
    """The config that a run would have saved, and the same on the command line."""
    with pytest.raises(ValueError, match=TOO_DEEP):
        parse(fixture("faults/04_config_nested.txt").read_text(), KNOWN)
    result = CliRunner().invoke(app, ["train", "quickstart", "run", f"loss={'-' * 10_000}1", "--dry-run"])
    assert result.exit_code == 2
    assert re.fullmatch(rf"error: cannot read '-----.*{TOO_DEEP}.*\n", result.output)


@loop_over(
    ("text", "value"),
    [
        ("[" * 98 + "1" + "]" * 98, None),
        ("/".join("a" * 50), "/".join("a" * 50)),
        ("runs/2026-11-30/lr=1e-4,(b)/x".replace("(b)", "b"), None),
        ("[" + ", ".join(["-1"] * 1000) + "]", (-1,) * 1000),
        (repr("[" * 1000), "[" * 1000),
        (repr("'\"" * 1000), "'\"" * 1000),
        (repr("\\" * 1001), "\\" * 1001),
        ("'''" + "'[" * 1000 + "'''", "'[" * 1000),
        ("# a comment [[[[\n1", 1),
        ("1" * 1000, int("1" * 1000)),
    ],
)
def test_what_is_within_the_limits_is_read(text, value):
    found = parse(text, KNOWN)
    assert value is None or found == value


@loop_over("recipe", recipes.available())
def test_a_value_is_read_back_from_its_argument(recipe):
    """Each field by itself, and the whole config as one argument."""
    config = recipes.load(recipe)[0]
    for value in (config, *(getattr(config, field.name) for field in dataclasses.fields(config))):
        assert parse(as_argument(value), components()) == value


@loop_over("recipe", recipes.available())
def test_recipes_stay_far_below_the_limits(recipe, monkeypatch):
    text = to_text(recipes.load(recipe)[0])
    monkeypatch.setattr("equipoise.core.nesting.DEEPEST", DEEPEST // 4)
    monkeypatch.setattr("equipoise.core.nesting.MOST", MOST // 10)
    check_text(text)


# ---- overrides -----------------------------------------------------------------------------------------------------


@loop_over(
    ("path", "message"),
    [
        (
            "a." * 20_000 + "a",
            r"'a\.a\..*\.\.\. \(40001 characters\) is not a path of fields: expected at most 100 points",
        ),
        ("data.of." * 40 + "num", "Digits has no field 'of'"),
        ("x" * 100_000, r"TrainConfig has no field 'xxx.*\.\.\. \(100000 characters\)"),
        ("terms." + "0" * 5000, r"'000.*\.\.\. \(5000 characters\) is not an index into the 0 values"),
        ("seed." + "a" * 5000, r"0 has no fields, so 'aaa.*\.\.\. \(5000 characters\) cannot be set in it"),
        ("", "'' is not a path: expected fields joined by points"),
    ],
)
def test_paths(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        override(quickstart(), {path: 1})
    assert len(str(caught.value)) < 2000


@loop_over("text", ["[" + "5," * 4000 + "5]", "'" + "a" * 90_000 + "'", "Digits", "0x" + "f" * 900])
@loop_over("field", ["terms", "loss", "seed", "d_optim.lr", "head.conditioning", "batch_size"])
def test_a_message_is_no_longer_than_the_mistake(text, field):
    start = time.perf_counter()
    try:
        override(quickstart(), {field: parse(text, KNOWN)})
    except ValueError as error:
        message = str(error)
    else:
        message = ""
    assert time.perf_counter() - start < 1
    assert len(message) < 20_000
    assert len(message.splitlines()) <= 21


def test_shown():
    assert shown("a'b") == repr("a'b")
    assert shown("a" * 501) == repr("a" * 500)[:500] + "... (501 characters)"
    assert shown(tuple(range(1000)), 10) == "(0, 1, 2, ... (4890 characters)"
    assert len(shown("a" * 10**6)) < 600


def test_an_argument_that_assigns_nothing_is_shown_in_part():
    result = CliRunner().invoke(app, ["train", "quickstart", "run", "x" * 50_000, "--dry-run"])
    assert result.exit_code == 2
    assert re.fullmatch(r"error: 'x+\.\.\. \(50000 characters\) is not an override: .*\n", result.output)


# ---- configs made in Python ----------------------------------------------------------------------------------------


def test_a_config_that_is_too_deep_cannot_be_saved():
    """Of 2,000 levels Python cannot make the text either."""
    data, deeper, lr = Digits(), Digits(), 1e-3
    for _ in range(40):
        data, lr = Few(of=data), After(schedule=lr, kimg=1.0)
    for _ in range(2000):
        deeper = Few(of=deeper)
    for changes in ({"data": data}, {"data": deeper}, {"d_optim": Adam(lr=lr)}):
        with pytest.raises(ValueError, match="cannot be saved as text that reads back the same"):
            to_text(override(quickstart(), changes))


# ---- recipes of one's own ------------------------------------------------------------------------------------------


@loop_over(
    ("content", "message"),
    [
        (b"def recipe(:\n", "is not a Python file that can be read: invalid syntax"),
        (b"\0", "is not a Python file that can be read: source code .*null bytes"),
        (b"x = '\xff'\n", "is not a Python file that can be read: .*'utf-8' codec"),
        (b"x = " + b"-" * 10_000 + b"1\n", "is not a Python file that can be read: MemoryError"),
        (b"x = a" + b".a" * 20_000 + b"\n", "is not a Python file that can be read: .*recursion"),
    ],
)
def test_a_recipe_that_is_no_python(tmp_path, content, message):
    (tmp_path / "mine.py").write_bytes(content)
    with pytest.raises(ValueError, match=rf"mine\.py {message}") as caught:
        recipes.load(f"{tmp_path}/mine.py:recipe")
    assert raised_here(caught.value)


def test_a_recipe_file_may_have_any_ending(tmp_path):
    (tmp_path / "mine.py.txt").write_text("from equipoise.recipes.quickstart import quickstart as recipe\n")
    assert recipes.load(f"{tmp_path}/mine.py.txt:recipe")[0] == quickstart()


def test_a_recipe_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "mine.py")
    with pytest.raises(ValueError, match=r"there is no file .*mine\.py"):
        recipes.load(f"{tmp_path}/mine.py:recipe")


def test_a_bug_in_a_recipe_is_its_own(tmp_path):
    (tmp_path / "mine.py").write_text("raise ValueError('mine')\n")
    with pytest.raises(ValueError, match="mine") as caught:
        recipes.load(f"{tmp_path}/mine.py:recipe")
    assert not raised_here(caught.value)  # so its traceback is shown


# ---- any text ------------------------------------------------------------------------------------------------------

WORDS = [
    "Adam",
    "R1",
    "Few",
    "Images",
    "After",
    "lr",
    "of",
    "path",
    "gamma",
    "schedule",
    "kimg",
    "true",
    "none",
    "lambda",
]
SIGNS = [*"()[]{}=,.:+-*/'\"\\#@~\n\0 ", "'''", "f'", "0x", "1e", "not ", "if ", "else "]
pieces = st.sampled_from([*WORDS, *SIGNS, "0", "-1", "1e999", "1j", "9" * 400, "\udcff", "é", "_"])
texts = (
    st.lists(pieces, max_size=30).map("".join)
    | st.text(max_size=20)
    | st.builds(
        lambda piece, count: piece * count, st.lists(pieces, min_size=1, max_size=4).map("".join), st.integers(1, 1000)
    )
)
fields = st.sampled_from(["data", "loss", "terms", "seed", "d_optim.lr", "d_optim.betas.0", "head.san", "d_steps"])


@pytest.mark.filterwarnings("ignore")  # of the parser, of escapes and numbers that it will not read for ever
@settings(max_examples=80)
@given(text=texts, path=fields | texts)
def test_any_text_is_a_value_or_a_message(text, path):
    error = complaint(text, path)
    assert error is None or raised_here(error)


def complaint(text: str, path: str) -> ValueError | None:
    try:
        override(quickstart(), {path: parse(text, KNOWN)})
    except ValueError as error:
        return error
    return None
