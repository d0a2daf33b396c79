"""The notebook of the documentation, and the example for Optuna: their code runs, shorter, without their packages."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest
from PIL import Image
from runs import lines
from tiny import recipe

from equipoise.config import override
from equipoise.generate import Generator
from equipoise.recipes import quickstart
from equipoise.rules import Evaluate

ROOT = Path(__file__).parents[1]


def code_of(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source, names):
    """Execute a cell as a notebook does -> the value of its last expression, or None."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_runs(tmp_path, monkeypatch):
    """With narrow networks, few images, and a stand-in for IPython's HTML."""
    narrow = override(quickstart.quickstart(), {"generator.width": 4, "discriminator.width": 4, "batch_size": 16})
    monkeypatch.setattr(quickstart, "quickstart", lambda: narrow)
    monkeypatch.chdir(tmp_path)
    display = types.ModuleType("IPython.display")
    display.HTML = str
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    notebook = json.loads((ROOT / "docs" / "notebooks" / "first_run.ipynb").read_text("utf-8"))
    cells = code_of(notebook)
    assert cells[0].count("\nKIMG = 6\n") == 1
    cells[0] = cells[0].replace("\nKIMG = 6\n", "\nKIMG = 0.2\n")
    names = {}
    values = [run_cell(cell, names) for cell in cells]
    assert isinstance(values[1], Generator)
    assert values[2][0] == (20, 28, 28, 1)
    assert [type(value) for value in values[3:5]] == [Image.Image] * 2
    assert [kimg for kimg, _ in values[5]] == [line["kimg"] for line in lines(names["RUN"]) if "eval/frechet" in line]
    assert (tmp_path / "runs/notebook/report.html").is_file()


class Pruned(Exception):  # noqa: N818  (Optuna's name)
    pass


class Trial:
    """Stands for a trial: the middle of every range; gives up after the first report if asked to."""

    def __init__(self, number, hopeless):
        self.number, self.hopeless, self.told = number, hopeless, []

    def suggest_float(self, name, low, high, *, log):
        assert log
        return (low * high) ** 0.5

    def report(self, value, step):
        self.told.append((step, value))

    def should_prune(self):
        return self.hopeless and bool(self.told)


@pytest.fixture
def example(monkeypatch):
    """The example, with a stand-in for Optuna: two trials, of which the second is given up."""
    optuna = types.ModuleType("optuna")
    optuna.Trial, optuna.Study, optuna.TrialPruned = Trial, object, Pruned
    backend = types.SimpleNamespace(JournalFileBackend=lambda file: file)
    optuna.storages = types.SimpleNamespace(JournalStorage=lambda backend: backend, journal=backend)
    study = types.SimpleNamespace(trials=[], values=[])

    def optimize(objective, n_trials):
        for number in range(n_trials):
            study.trials.append(Trial(number, hopeless=number == 1))
            try:
                study.values.append(objective(study.trials[-1]))
            except Pruned:
                study.values.append(None)
        study.best_value, study.best_trial, study.best_params = study.values[0], study.trials[0], {}

    study.optimize = optimize
    optuna.create_study = lambda *, study_name, storage, load_if_exists: study
    monkeypatch.setitem(sys.modules, "optuna", optuna)
    spec = importlib.util.spec_from_file_location("tune_with_optuna", ROOT / "examples" / "tune_with_optuna.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_trials_of_optuna_are_runs_that_end_early_if_they_are_given_up(example, tmp_path, monkeypatch):

    from equipoise.config import override

    monkeypatch.setattr(example, "quickstart", lambda: override(recipe(), {"head.san": False}))
    monkeypatch.setattr(example, "Evaluate", lambda **given: Evaluate(**given | {"num": 50}))
    study = example.main(["--trials", "2", "--kimg", "0.16", "--out", str(tmp_path)])
    finished, given_up = (
        [line["eval/frechet"] for line in lines(tmp_path / f"trial-00{i}") if "eval/frechet" in line] for i in (0, 1)
    )
    assert study.values == [min(finished), None]
    assert len(finished) == 5
    assert 1 <= len(given_up) < 5
    assert [value for _, value in study.trials[1].told] == given_up[: len(study.trials[1].told)]
