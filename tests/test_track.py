"""Trackers: numbers, grids and settings as the run has them, one run of theirs for one of ours, and trouble of theirs.

The two packages are stand-ins: modules that note their calls, with the signatures of the real ones.
"""

from __future__ import annotations

import re
import shutil
import sys
import types

import pytest
from PIL import Image
from runs import lines, newest
from tiny import recipe
from typer.testing import CliRunner

from equipoise.cli.app import app
from equipoise.config import override
from equipoise.core.extras import install
from equipoise.core.types import RunError
from equipoise.track import MLflow, WandB, settings, tracker
from equipoise.train import train


class WandBServer:
    """Stands for wandb: runs by id, with their settings, logs, and exit codes."""

    def __init__(self):
        self.runs, self.fails = {}, None
        module = types.ModuleType("wandb")
        module.init, module.Image = self.init, lambda picture: picture
        module.Settings = lambda console: {"console": console}
        self.module = module

    def init(self, *, project, name, tags, dir, id, resume, config, settings, **more):  # noqa: A002
        assert more.keys() == {"entity", "group", "mode", "allow_val_change"}
        if self.fails == "init":
            raise ConnectionError("no network\nand a long story")
        assert resume == "allow"
        assert settings == {"console": "off"}
        key = id or f"run{len(self.runs)}"
        run = self.runs.setdefault(key, types.SimpleNamespace(id=key, logs=[], exits=[], starts=[], metrics=[]))
        run.starts.append({"project": project, "name": name, "config": config, "dir": dir, "tags": tags})
        run.define_metric = lambda name, step_metric=None: run.metrics.append((name, step_metric))
        run.log = lambda values: self.log(run, values)
        run.finish = lambda exit_code: run.exits.append(exit_code)
        return run

    def log(self, run, values):
        if self.fails == "log":
            raise ConnectionError("no network\nand a long story")
        run.logs.append(values)


class MLflowServer:
    """Stands for mlflow: experiments, and runs by id with parameters, metrics, images and status."""

    def __init__(self):
        self.experiments, self.runs = {}, {}
        module = types.ModuleType("mlflow")
        module.entities = types.SimpleNamespace(
            Metric=lambda key, value, timestamp, step: (key, value, step), Param=lambda key, value: (key, value)
        )
        module.MlflowClient = lambda tracking_uri: self
        self.module = module

    def get_experiment_by_name(self, name):
        known = self.experiments.get(name)
        return None if known is None else types.SimpleNamespace(experiment_id=known)

    def create_experiment(self, name):
        return self.experiments.setdefault(name, f"e{len(self.experiments)}")

    def create_run(self, experiment_id, run_name):
        key = f"r{len(self.runs)}"
        self.runs[key] = types.SimpleNamespace(
            experiment=experiment_id, name=run_name, metrics=[], params={}, images=[], texts={}, status="RUNNING"
        )
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))

    def update_run(self, run_id, status):
        self.runs[run_id].status = status

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        run = self.runs[run_id]
        assert run.params.keys().isdisjoint(key for key, _ in params)  # a parameter is written once
        run.params.update(params)
        run.metrics += metrics

    def log_text(self, run_id, text, artifact_file):
        self.runs[run_id].texts[artifact_file] = text

    def log_image(self, run_id, image, artifact_file=None, *, key, step):
        self.runs[run_id].images.append((key, image, step))

    def set_terminated(self, run_id, status):
        self.runs[run_id].status = status


@pytest.fixture
def wandb(monkeypatch):
    server = WandBServer()
    monkeypatch.setitem(sys.modules, "wandb", server.module)
    return server


@pytest.fixture
def mlflow(monkeypatch):
    server = MLflowServer()
    monkeypatch.setitem(sys.modules, "mlflow", server.module)
    return server


def grids(folder):
    """The images seen at each grid but the first, which is written before the statistics are open."""
    return sorted(int(path.stem) for path in (folder / "samples").glob("0*.png"))[1:]


def test_both_have_what_the_run_has_and_continue_when_it_resumes(wandb, mlflow, tmp_path):
    """The run loses its last checkpoint, and trains on from the one before, for longer."""
    folder = tmp_path / "first"
    events = [WandB(project="p", tags=["a"]), MLflow(experiment="e")]
    train(recipe(), folder, events=events)
    (run,) = wandb.runs.values()
    (other,) = mlflow.runs.values()
    written = lines(folder)
    scalars = [log for log in run.logs if "samples" not in log]
    assert [log["nimg"] for log in scalars] == [line["nimg"] for line in written]
    for log, line in zip(scalars, written, strict=True):
        assert log == pytest.approx({name: value for name, value in line.items() if name != "kimg"}, rel=1e-5)
    assert [log["nimg"] for log in run.logs if "samples" in log] == grids(folder) == [s for _, _, s in other.images]
    for log in run.logs:
        if "samples" in log:
            with Image.open(folder / "samples" / f"{log['nimg']:012d}.png") as grid:
                assert log["samples"].size == grid.size
    assert run.metrics == [("nimg", None), ("*", "nimg")]
    losses = [(value, step) for key, value, step in other.metrics if key == "D/loss"]
    assert losses == [(pytest.approx(line["D/loss"], rel=1e-5), line["nimg"]) for line in written]
    assert run.starts[0]["name"] == other.name == "first"
    assert run.starts[0]["config"]["generator.width"] == 2
    assert other.params["loss"] == "Hinge"
    assert other.texts["config.txt"] == (folder / "config.txt").read_text("utf-8")
    assert (run.exits, other.status) == ([0], "FINISHED")

    shutil.rmtree(newest(folder))
    begun = len(run.logs)
    train(override(recipe(), {"total_kimg": 0.2}), folder, events=events)
    assert (len(wandb.runs), len(mlflow.runs)) == (1, 1)
    assert run.starts[1]["config"]["total_kimg"] == 0.2
    resumed = [log["nimg"] for log in run.logs[begun:]]
    assert min(resumed) > written[-2]["nimg"] - 40
    assert max(resumed) == 200
    assert (run.exits, other.status) == ([0, 0], "FINISHED")
    train(override(recipe(), {"total_kimg": 0.2}), folder, events=events)  # a finished run begins nothing
    assert len(run.starts) == 2


def test_a_run_that_ends_in_an_error_is_marked(wandb, mlflow, tmp_path):
    def stop(now):
        if now.nimg > 20:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train(recipe(), tmp_path, events=[WandB(), MLflow(), stop])
    assert [run.exits for run in wandb.runs.values()] == [[1]]
    assert [run.status for run in mlflow.runs.values()] == ["FAILED"]


def test_a_tracker_that_fails_does_not_end_the_run(wandb, tmp_path, capsys):
    wandb.fails = "log"
    train(recipe(), tmp_path / "a", events=[WandB()])
    said = capsys.readouterr().err
    assert said.count("failed at nimg=") == 1
    assert "no network. The run trains on without it; stats.jsonl has all numbers." in said
    assert "long story" not in said
    assert lines(tmp_path / "a")[-1]["nimg"] == 160
    wandb.fails = "init"  # before anything is lost, an error
    with pytest.raises(RunError, match=r"WandB cannot begin: no network\. Check its settings and login"):
        train(recipe(), tmp_path / "b", events=[WandB()])


def test_a_damaged_note_is_named(wandb, tmp_path):
    (tmp_path / "wandb.json").write_text("{}")
    with pytest.raises(ValueError, match=r"wandb\.json is damaged: wandb\.json names no id\. Delete it"):
        train(recipe(), tmp_path, events=[WandB()])


def test_without_the_package_the_extra_is_named(monkeypatch):
    for cls, name in ((WandB, "wandb"), (MLflow, "mlflow")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=re.escape(f"{cls.__name__} needs {name}: {install(name)}")):
            cls()


def test_settings_have_every_component_and_every_value():
    found = settings(recipe())
    assert found["discriminator"] == "SANDigitsDiscriminator"
    assert (found["head.san"], found["d_optim.lr"], found["start"]) == (True, 1e-3, None)
    assert found["d_normalizer.skip.0"] == "body.0"
    assert all(value is None or isinstance(value, bool | int | float | str) for value in found.values())


def test_a_text_names_a_tracker(wandb, mlflow):
    assert tracker("wandb") == tracker("WandB") == WandB()
    assert tracker("WandB(project=faces, tags=[a, b])") == WandB(project="faces", tags=("a", "b"))
    assert tracker("MLflow(uri='http://127.0.0.1:5000')").uri == "http://127.0.0.1:5000"
    with pytest.raises(ValueError, match=r"expected a tracker, MLflow or WandB.*got 'tensorboard'"):
        tracker("tensorboard")
    with pytest.raises(ValueError, match=r"unknown component 'WanB'.*WandB"):
        tracker("WanB(project=faces)")
    with pytest.raises(ValueError, match=r"WandB has no field 'projet'.*'project'"):
        tracker("WandB(projet=faces)")


def test_the_command_takes_trackers(wandb, tmp_path, monkeypatch):
    recipe_file = f"{__file__.rpartition('/')[0]}/tiny.py:recipe"
    arguments = ["train", recipe_file, str(tmp_path / "a"), "total_kimg=0.04", "--track", "WandB(name=mine)"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [run.starts[0]["name"] for run in wandb.runs.values()] == ["mine"]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    result = CliRunner().invoke(app, ["train", recipe_file, str(tmp_path / "b"), "--track", "mlflow"])
    assert result.exit_code == 2
    assert "MLflow needs mlflow: pip install" in result.output
    assert not (tmp_path / "b").exists()
