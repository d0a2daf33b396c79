"""The wrong versions of `scripts/mutants.py`: each is still one edit of code, and its tests are there."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))  # no part of the package

from mutants import EQUIVALENT, FIRST, MUTANTS, Mutant  # noqa: E402
from mutate import Result, all_tests, applied, chosen_tests, code, quick, table  # noqa: E402

SAMPLE = Mutant("a mistake", "losses/sample.py", "a + b", "a - b")


@pytest.fixture
def project(tmp_path):
    """A project of one file."""
    path = tmp_path / "equipoise" / SAMPLE.file
    path.parent.mkdir(parents=True)
    path.write_text('"""The sum."""\n\n\ndef f(a, b):\n    """a plus b."""\n    return a + b  # both\n', "utf-8")
    return tmp_path


def test_every_wrong_version_is_one_edit_of_code():
    """Its text is in the file once, what comes out compiles and is another program: the list cannot rot."""
    for mutant in MUTANTS:
        compile(applied(mutant), mutant.file, "exec")


def test_names_are_unique_and_their_tests_exist():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 80
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.file for mutant in MUTANTS} == FIRST.keys()
    assert set(EQUIVALENT) <= {mutant.name for mutant in MUTANTS}
    for mutant in MUTANTS:
        for test in quick(mutant):
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / file).read_text("utf-8"), (mutant.name, test)


def test_all_tests_are_run_where_the_quick_ones_see_nothing():
    mutant = next(mutant for mutant in MUTANTS if mutant.file == "losses/penalties.py")
    tests = all_tests(mutant)
    assert tests[: len(quick(mutant))] == quick(mutant)
    assert sorted(tests) == sorted(f"tests/{path.name}" for path in ROOT.glob("tests/test_*.py"))


def test_again_is_the_test_that_noticed_it_last_time_with_all_its_values():
    mutant, again = MUTANTS[0], Namespace(again=True, quick=False)
    noticed = Result(mutant.file, "tests/test_a.py::test_b[c]", 1.0, "quick")
    assert chosen_tests(mutant, again, noticed) == ("again", ["tests/test_a.py::test_b"])
    for last in (None, noticed._replace(test=None), noticed._replace(test="timeout")):
        assert chosen_tests(mutant, again, last) == ("quick", quick(mutant))
    assert chosen_tests(mutant, Namespace(again=False, quick=False), noticed) == ("all", all_tests(mutant))


def test_a_mistake_is_written_into_the_file(project):
    assert "return a - b  # both" in applied(SAMPLE, project)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a * b", "a / b", "0 times, and must hold it once"),
        ("a", "c", "times, and must hold it once"),
        ("a plus b", "a minus b", "is the same code"),
        ("# both", "# one", "is the same code"),
    ],
)
def test_an_edit_of_no_code_is_refused(project, old, new, message):
    with pytest.raises(ValueError, match=message):
        applied(SAMPLE._replace(old=old, new=new), project)


def test_code_that_does_not_compile_is_refused(project):
    with pytest.raises(SyntaxError, match="invalid syntax"):
        applied(SAMPLE._replace(new="a +"), project)


def test_code_keeps_strings_that_are_values():
    assert code('x = "a"') != code('x = "b"')
    assert code('def f():\n    """a"""\n    return 1') == code('def f():\n    """b"""\n    return 1')


def test_a_table_says_which_test_noticed():
    mutant = MUTANTS[0]
    row = table({mutant.name: Result(mutant.file, "tests/test_a.py::test_b[c|d]", 1.0, "quick")}).splitlines()[2]
    assert row == rf"| `{mutant.file}` | {mutant.name} | `test_a.py::test_b[c\|d]` |"
    assert table({mutant.name: Result(mutant.file, None, 1.0, "all")}).endswith("| nothing: survived |")
