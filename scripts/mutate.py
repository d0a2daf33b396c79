"""Do the tests notice? Wrong versions of the library, one after the other, each against the tests.

    python scripts/mutate.py --quick          the tests that are most likely to notice (`mutants.FIRST`)
    python scripts/mutate.py --survivors      all tests, for those that survived so far
    python scripts/mutate.py --again          the one test that noticed it last time, for each
    python scripts/mutate.py --only growth    those with this in their name or file
    python scripts/mutate.py --table          print the results as Markdown

Each wrong version is written into a copy of the project, and its tests run until the first one fails. At the end all
tests that failed run once on the intact copy, where they must pass. Results are kept in a JSON file, by name. One
process at a time. Exit status 1: a wrong version survived.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mutants import EQUIVALENT, FIRST, MUTANTS, Mutant

__all__ = ["applied", "main"]

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".*_cache", ".hypothesis", "site")
LIMIT = 600.0
"""Seconds after which tests hang, which counts as noticed."""
BROKEN = 100
"""Exit status of a process in which pytest did not start."""
HEAVY = ("torch", "torch._dynamo", "torch.utils.data", "pydantic", "safetensors.torch", "scipy.stats", "typer", "yaml")
"""Imported once, before a process is forked for each wrong version. Nothing of equipoise."""


class Result(NamedTuple):
    """test: the first one that failed, "timeout", "crash", or None: the wrong version survived."""

    file: str
    test: str | None
    seconds: float
    tests: str
    """Which were run: "quick", "again" or "all"."""


# ---- a wrong version ---------------------------------------------------------------------------------------


def applied(mutant: Mutant, root: Path = ROOT) -> str:
    """The text of the file with the mistake in it.

    Raises:
        ValueError: if `old` does not stand there exactly once, or `new` is no other code.
    """
    text = (root / "equipoise" / mutant.file).read_text(encoding="utf-8")
    if (count := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name!r}: {mutant.file} holds {mutant.old!r} {count} times, and must hold it once")
    wrong = text.replace(mutant.old, mutant.new)
    if code(wrong) == code(text):
        raise ValueError(f"{mutant.name!r}: {mutant.new!r} is the same code as {mutant.old!r}")
    return wrong


@cache
def code(text: str) -> str:
    """The program without its comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.dump(tree)


def quick(mutant: Mutant) -> list[str]:
    """The tests that are most likely to notice, in their order."""
    return [place(name) for name in dict.fromkeys((*mutant.tests, *FIRST[mutant.file]))]


def place(name: str) -> str:
    """The name that pytest gives to "ema" or "ema::test_x"."""
    file, colons, test = name.partition("::")
    return f"tests/test_{file}.py{colons}{test}"


def all_tests(mutant: Mutant) -> list[str]:
    """Tests of `quick`, then tests that import the wrong file or its room, then all others."""
    room, name = mutant.file.removesuffix(".py").split("/")
    marks = (f"equipoise.{room}.{name} ", f"equipoise.{room} ", f"equipoise import {room}", f"equipoise.{room}.")
    others = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/test_*.py"))
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in others}
    ranks = {path: next((i for i, mark in enumerate(marks) if mark in texts[path]), len(marks)) for path in others}
    return list(dict.fromkeys((*quick(mutant), *sorted(others, key=lambda path: (ranks[path], len(texts[path]))))))


# ---- tests in a process of their own -----------------------------------------------------------------------


class FirstFailure:
    """A plugin of pytest that writes down the names of tests that failed."""

    def __init__(self, file: Path):
        self.file = file

    def note(self, report: Any) -> None:
        if report.failed:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(report.nodeid + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)


def failures(copy: Path, tests: Iterable[str], limit: float, *options: str) -> list[str]:
    """The tests that fail in the copy, or ["timeout"] or ["crash"]."""
    noted = copy.parent / "failed.txt"
    noted.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        status = BROKEN
        try:
            status = in_copy(copy, [*tests, *options], FirstFailure(noted))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)  # nothing of the parent is undone here
    ended = waited(child, limit)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what hangs, and processes that tests left
    if ended is None:
        os.waitpid(child, 0)
        return ["timeout"]
    failed = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    if ended in {BROKEN, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise RuntimeError(f"no tests ran: {(copy.parent / 'output.txt').read_text(encoding='utf-8')}")
    return failed or ([] if ended == 0 else ["crash"])


def waited(child: int, limit: float) -> int | None:
    """Its exit status, negative if a signal ended it; None if it still runs after `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def in_copy(copy: Path, arguments: list[str], plugin: FirstFailure) -> int:
    """pytest, in a child: its output goes to a file beside the copy, its imports come from the copy."""
    os.setsid()
    output = os.open(copy.parent / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if path not in {"", str(ROOT), str(Path(__file__).parent)})]
    os.environ |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    options = ["-p", "no:cacheprovider", "-p", "no:randomly", f"--basetemp={copy.parent / 'tmp'}"]
    if not (import_module("equipoise").__file__ or "").startswith(str(copy)):
        return BROKEN
    return int(pytest.main([*arguments, *options], plugins=[plugin]))


def chosen_tests(mutant: Mutant, asked: argparse.Namespace, last: Result | None) -> tuple[str, list[str]]:
    """Which tests are to be run, in a word, and their names. last: the result so far."""
    if asked.again and last is not None and (last.test or "").startswith("tests/"):
        assert last.test is not None
        return "again", [last.test.partition("[")[0]]
    return ("quick", quick(mutant)) if asked.quick or asked.again else ("all", all_tests(mutant))


def run(mutant: Mutant, copy: Path, limit: float, kind: str, tests: list[str]) -> Result:
    """Try a wrong version. kind: of the tests, in a word."""
    path, start = copy / "equipoise" / mutant.file, time.monotonic()
    intact, times = path.read_text(encoding="utf-8"), path.stat()
    path.write_text(applied(mutant), encoding="utf-8")
    try:
        failed = failures(copy, tests, limit, "-x")
    finally:
        path.write_text(intact, encoding="utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # compiled files are valid again
    seconds = round(time.monotonic() - start, 1)
    return Result(mutant.file, failed[0] if failed else None, seconds, kind)


def confirmed(results: dict[str, Result], copy: Path, limit: float) -> dict[str, Result]:
    """The results without those whose test fails on the intact copy too."""
    killers = {result.test for result in results.values() if result.test and result.test.startswith("tests/")}
    wrong = set(failures(copy, sorted(killers), limit)) if killers else set()
    for name in wrong:
        print(f"fails without any mistake: {name}", flush=True)
    return {name: result for name, result in results.items() if result.test not in wrong}


# ---- results -----------------------------------------------------------------------------------------------


def table(results: dict[str, Result]) -> str:
    """Markdown."""
    rows = ["| file | wrong version | noticed by |", "|---|---|---|"]
    for mutant in MUTANTS:
        if mutant.name in results:
            test = results[mutant.name].test
            by = f"`{test.removeprefix('tests/')}`" if test else f"nothing: {EQUIVALENT.get(mutant.name, 'survived')}"
            rows.append(f"| `{mutant.file}` | {mutant.name} | {by.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def read(file: Path) -> dict[str, Result]:
    if not file.exists():
        return {}
    known = {mutant.name for mutant in MUTANTS}
    return {name: Result(**of) for name, of in json.loads(file.read_text()).items() if name in known}


def write(file: Path, results: dict[str, Result]) -> None:
    file.write_text(json.dumps({name: result._asdict() for name, result in results.items()}, indent=1) + "\n")


def chosen(asked: argparse.Namespace, results: dict[str, Result]) -> list[Mutant]:
    """The wrong versions that are to be run."""
    found = [mutant for mutant in MUTANTS if asked.only in mutant.name or asked.only in mutant.file]
    if asked.survivors:
        return [m for m in found if m.name in results and results[m.name].test is None and m.name not in EQUIVALENT]
    return [m for m in found if m.name not in results] if asked.missing else found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run the tests of `FIRST` alone")
    parser.add_argument("--again", action="store_true", help="run the test that noticed it last time alone")
    parser.add_argument("--survivors", action="store_true", help="those that survived so far")
    parser.add_argument("--missing", action="store_true", help="those without a result")
    parser.add_argument("--only", default="", help="those with this in their name or file")
    parser.add_argument("--json", type=Path, default=Path("mutants.json"), help="the results")
    parser.add_argument("--table", action="store_true", help="print the results, and run nothing")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds per wrong version")
    asked = parser.parse_args(arguments)
    results = read(asked.json)
    if asked.table:
        print(table(results))
        return 0
    for name in HEAVY:
        import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutate") as folder:
        copy, ran = Path(folder) / "copy", chosen(asked, results)
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        for i, mutant in enumerate(ran, 1):
            kind, tests = chosen_tests(mutant, asked, results.get(mutant.name))
            result = results[mutant.name] = run(mutant, copy, asked.limit, kind, tests)
            write(asked.json, results)
            verdict = result.test or "SURVIVED"
            print(f"{i}/{len(ran)} {mutant.file}: {mutant.name}: {verdict} ({result.seconds:.0f} s)", flush=True)
        results = confirmed(results, copy, 10 * asked.limit)
        write(asked.json, results)
    survived = [name for name, result in results.items() if result.test is None and name not in EQUIVALENT]
    noticed = sum(result.test is not None for result in results.values())
    print(f"{noticed} of {len(results)} noticed, {len(survived)} survived", *survived, sep="\n")
    return int(bool(survived))


if __name__ == "__main__":
    raise SystemExit(main())
