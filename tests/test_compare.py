"""Runs side by side: what differs, last statistics, equal seeds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import run
from PIL import Image
from tiny import recipe

from equipoise.config import override
from equipoise.data import MNIST, Digits, Few, Images
from equipoise.evaluate import Compared, compare, compare_table, config_rows, draw_curves, draw_grids, evaluate
from equipoise.evaluate.compare import stat_rows
from equipoise.features import FeatureNet
from equipoise.generate import Generator, sample
from equipoise.losses import Hinge, NonSaturating, Wasserstein
from equipoise.runs import Run, own_features, read_run
from equipoise.train import train
from equipoise.weights import SpectralNorm


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """a, b with another loss, and c, which is a again."""
    folder = tmp_path_factory.mktemp("runs")
    base = override(recipe(), {"data": Few(num=100), "total_kimg": 0.08})
    train(base, folder / "a")
    train(override(base, {"loss": NonSaturating(), "d_optim.lr": 5e-4}), folder / "b")
    train(base, folder / "c")
    return [folder / name for name in "abc"]


@pytest.fixture(scope="module")
def compared(runs):
    return compare(runs, num=50, seed=3)


def lines(*values):
    return [{"nimg": 1000 * i, "kimg": float(i)} | line for i, line in enumerate(values, 1)]


# ---- the table -------------------------------------------------------------------------------------------


def test_the_config_rows_are_the_fields_that_differ_between_any_two():
    base = recipe()
    assert config_rows([base, base]) == {}
    others = [override(base, {"seed": 4}), override(base, {"d_optim.lr": 0.5})]
    assert config_rows([base, *others]) == {"seed": ["0", "4", "0"], "d_optim.lr": ["0.001", "0.001", "0.5"]}


def test_components_that_differ_are_shown_whole_for_all():
    smooth, plain = (replace(recipe(), loss=NonSaturating(smoothing=s)) for s in (0.1, 0.0))
    assert config_rows([smooth, plain]) == {"loss.smoothing": ["0.1", "0.0"]}
    shown = {"loss": ["NonSaturating(smoothing=0.1)", "NonSaturating(smoothing=0.0)", "Hinge()"]}
    assert config_rows([smooth, plain, recipe()]) == shown
    assert config_rows([recipe(), replace(recipe(), loss=Wasserstein())])["loss"] == ["Hinge()", "Wasserstein()"]


def test_statistics_are_the_last_of_each_run_and_the_median_speed():
    first = lines({"D/loss": 1.0, "images_per_second": 10}, {"D/loss": 2.0, "images_per_second": 30})
    second = lines(
        {"D/loss": 3.0, "eval/frechet": 7.0, "images_per_second": 50}, {"D/loss": 4.0, "D/sigma/body.0": 1.0}
    )
    rows = stat_rows([Run(None, recipe(), stats) for stats in (first, second, [])])
    assert rows == {
        "kimg": ["2", "2", ""],
        "images per second": ["20", "50", ""],
        "D/loss": ["2", "4", ""],
        "eval/frechet": ["", "7", ""],
    }


# ---- real runs -------------------------------------------------------------------------------------------


def test_runs_are_drawn_from_the_same_seed_and_measured_alike(runs, compared):
    for folder, one in zip(runs, compared, strict=True):
        expected = np.concatenate([x for x, _ in sample(Generator.from_pretrained(folder), 100, seed=3)])
        np.testing.assert_array_equal(one.pixels, expected)
        assert one.found.report["images"]["num"] == 50
        assert one.found.report["against"]["num"] == 100
        assert one.found.report["features"]["name"] == "digits"
    a, b, c = (one.found.numbers["frechet"].value for one in compared)
    assert a == c
    assert a != b


def test_figures_have_a_line_and_a_grid_for_each_run(compared):
    runs = [one.run for one in compared]
    curves = {ax.get_title(): ax for ax in draw_curves(runs).axes if ax.get_title()}
    assert {"D/loss", "G/loss", "D/real", "images_per_second"} <= set(curves)
    assert not any(name.startswith("D/sigma") for name in curves)
    drawn = curves["D/loss"].get_lines()
    for line, shown in zip(drawn, runs, strict=True):
        assert line.get_xdata().tolist() == [entry["kimg"] for entry in shown.stats]
        assert line.get_ydata().tolist() == [entry["D/loss"] for entry in shown.stats]
    assert len({line.get_color() for line in drawn}) == 3
    assert [len(ax.get_images()) for ax in draw_grids(compared).axes] == [1, 1, 1]


def test_curves_without_statistics(compared):
    with pytest.raises(ValueError, match="none of these runs has written statistics yet"):
        draw_curves([one.run._replace(stats=[]) for one in compared])


def test_the_command_writes_a_table_curves_and_grids(runs, tmp_path):
    said = run("compare", *runs, "--num", 50, "--out", tmp_path / "c")
    for text in (
        "loss",
        "Hinge()",
        "NonSaturating(smoothing=0.0)",
        "d_optim.lr",
        "0.0005",
        "D/loss",
        "frechet",
        "recall",
    ):
        assert text in said
    assert "seed" not in said
    for name in ("curves.png", "grids.png"):
        with Image.open(tmp_path / "c" / name) as picture:
            assert picture.width > 300
    report = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert report["runs"] == [str(folder) for folder in runs]
    assert report["config"]["d_optim.lr"] == ["0.001", "0.0005", "0.001"]
    assert report["stats"][1]["nimg"] == 80
    assert report["evaluation"][0]["seed"] == 0


def test_without_metrics_nothing_is_measured(runs, tmp_path):
    said = run("compare", *runs[:2], "--metrics", "none", "--out", tmp_path / "c")
    assert "frechet" not in said
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["evaluation"] == [None, None]


def test_bad_comparisons(runs, tmp_path):
    assert "needs at least two runs" in run("compare", runs[0], code=2)
    assert "is not a run" in run("compare", runs[0], tmp_path, code=2)
    (tmp_path / "config.txt").write_text("TrainConfig(data=Unknown())")
    with pytest.raises(ValueError, match=r"unknown component 'Unknown'.*--recipe FILE\.py:FUNCTION"):
        read_run(tmp_path)


def test_a_line_of_statistics_that_is_being_written_is_left_out(runs, tmp_path):
    (tmp_path / "config.txt").write_text((runs[0] / "config.txt").read_text())
    assert read_run(tmp_path).stats == []
    (tmp_path / "stats.jsonl").write_text('{"nimg": 8, "kimg": 0.008}\n{"nimg": 16, "ki')
    assert read_run(tmp_path).stats == [{"nimg": 8, "kimg": 0.008}]
    assert read_run(tmp_path).config == read_run(runs[0]).config


def test_the_judge_is_for_digits_alone():
    for data, network in (
        (Digits(), "digits"),
        (MNIST(), "digits"),
        (Few(num=9), "digits"),
        (Images("x"), "inception"),
    ):
        assert own_features(replace(recipe(), data=data)) == network


def test_a_table_of_runs_without_measurements(compared):
    table = compare_table([Compared(one.run, one.pixels, None) for one in compared])
    assert len(table.columns) == 4
    assert replace(recipe(), loss=Hinge()) == recipe()


def test_critics_are_asked_too(tmp_path, monkeypatch):
    """Each run's own, as `equipoise evaluate` does; where nothing reads features, none are computed."""
    monkeypatch.setattr(FeatureNet, "__call__", None)
    base = override(recipe(), {"data": Few(num=100), "total_kimg": 0.08, "loss": Wasserstein(), "head.san": False})
    folders = [tmp_path / name for name in "ab"]
    for seed, folder in enumerate(folders):
        train(override(base, {"seed": seed, "d_normalizer": SpectralNorm()}), folder)
    found = compare(folders, metrics="critic", num=50, features="inception")
    expected = [evaluate(folder, "Few(num=100)", metrics="critic", num=50) for folder in folders]
    for one, other in zip(found, expected, strict=True):
        assert one.found.numbers == other.numbers
        assert one.found.report["images"] == other.report["images"]
        assert one.found.report["features"] is None
        assert one.found.report["against"]["num"] == 100
    assert found[0].found.numbers != found[1].found.numbers
    assert "features" not in one.found.table().caption
