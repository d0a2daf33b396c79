"""Truncation swept over thresholds, where the answer is known, and as a command."""

import json

import numpy as np
import pytest
import torch
from commands import run
from loops import loop_over
from PIL import Image
from scipy import stats
from tiny import recipe
from torch import nn

from equipoise.config import override
from equipoise.core.types import ImageSpec
from equipoise.data import Few
from equipoise.evaluate import Evaluator, of_generator, open_source, sweep, thresholds, tradeoff_table, write_sweep
from equipoise.evaluate.sweep import draw_curves
from equipoise.features import FeatureNet
from equipoise.generate import Generator
from equipoise.models import MLPGenerator
from equipoise.train import train

# ---- where the answer is known ---------------------------------------------------------------------------


class Shown(nn.Module):
    """The first component of z as the brightness of an image of 8x8, 4 standard deviations from black to white."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, z, y=None):
        return (z[:, :1, None, None] / 4 * self.weight).expand(-1, 1, 8, 8)


class Brightness(FeatureNet):
    """z again."""

    def __init__(self):
        super().__init__("brightness", "0" * 64, nn.Identity(), "cpu", 1000)

    def forward(self, x):
        return (x.double().mean((1, 2, 3))[:, None] / 127.5 - 1) * 4, None


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    G = Generator(Shown().requires_grad_(False), MLPGenerator(z_dim=2), ImageSpec(8, 1))
    evaluator = Evaluator(
        of_generator("itself", G, None),
        metrics=["frechet", "pr"],
        num=2000,
        seed=1,
        features=Brightness(),
        cache=tmp_path_factory.mktemp("cache"),
    )
    return sweep(G, evaluator, [0.5, 1.0, 2.0, None], name="G")


def test_the_distance_at_each_threshold_is_that_of_the_truncated_normal(measured):
    for step in measured[:-1]:
        sigma = stats.truncnorm(-step.threshold, step.threshold).std()
        assert step.found.numbers["frechet"].value == pytest.approx((1 - sigma) ** 2, abs=0.03)
    assert measured[-1].found.numbers["frechet"].value == pytest.approx(0, abs=1e-3)


def test_diversity_rises_with_the_threshold(measured):
    recalls = [step.found.numbers["recall"].value for step in measured]
    within = [stats.norm.cdf(t) - stats.norm.cdf(-t) for t in (0.5, 1, 2)]  # of real images, and balls reach further
    assert recalls == sorted(recalls)
    np.testing.assert_allclose(recalls[:3], within, atol=0.05)


def test_every_step_says_what_it_measured_and_shows_the_same_draws(measured):
    assert [step.found.report["images"]["source"] for step in measured] == [
        "G truncated at 0.5",
        "G truncated at 1",
        "G truncated at 2",
        "G",
    ]
    z = torch.cat([torch.from_numpy(Brightness()(step.pixels).features).T for step in measured])  # (4, 100)
    order = z[-1].argsort()
    assert z[:, order].diff(dim=1).min() > -0.04  # a level of brightness is 0.03
    assert z.abs().amax(1)[:3].tolist() == pytest.approx([0.5, 1, 2], abs=0.15)


def test_what_is_written(measured, tmp_path):
    files = write_sweep(measured, tmp_path / "new")
    assert {file.name for file in files} == {
        "sweep.json",
        "sweep.png",
        "thresholds.png",
        "0.5.png",
        "1.png",
        "2.png",
        "none.png",
    }
    assert all(file.exists() for file in files)
    with Image.open(tmp_path / "new" / "thresholds.png") as picture:
        assert picture.size == (80, 32)
    report = json.loads((tmp_path / "new" / "sweep.json").read_text())
    assert [step["threshold"] for step in report] == [0.5, 1, 2, None]
    assert report[0]["metrics"]["frechet"]["numbers"]["frechet"]["value"] == measured[0].found.numbers["frechet"].value
    assert report[0]["features"]["name"] == "brightness"


def test_curves_show_every_number_and_the_table_every_threshold(measured):
    axes = draw_curves(measured).axes
    lines = {line.get_label(): line for ax in axes for line in ax.get_lines()}
    for name in ("frechet", "precision", "recall"):
        x, y = lines[name].get_data()
        assert x[:3].tolist() == [0.5, 1, 2]
        assert list(y) == [step.found.numbers[name].value for step in measured]
    assert [text.get_text() for text in axes[2].texts] == ["0.5", "1", "2", "none"]
    assert tradeoff_table(measured).row_count == 4


# ---- thresholds as text ----------------------------------------------------------------------------------


def test_thresholds():
    assert thresholds("0.2:2.0", 10) == [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
    assert thresholds("2,0.5", 10) == [2.0, 0.5]
    assert thresholds("1", 10) == [1.0]


@loop_over("text", ["", "a:b", "1:", "1:2:3", "1:2,3"])
def test_text_that_is_no_thresholds(text):
    with pytest.raises(ValueError, match=r"given as LOW:HIGH, such as 0\.2:2\.0, or as a list"):
        thresholds(text, 10)


def test_thresholds_that_cannot_be():
    with pytest.raises(ValueError, match=r"above 0, such as 0\.5 .*got 0\.0"):
        thresholds("0:1", 3)
    with pytest.raises(ValueError, match="two finite numbers, and at least 2 steps"):
        thresholds("1:inf", 3)
    with pytest.raises(ValueError, match="in 1 steps is not a range"):
        thresholds("1:2", 1)


# ---- commands --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    train(override(recipe(), {"data": Few(num=100)}), run_dir)
    return run_dir


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_sweep_of_a_run_against_its_own_data_with_the_judge(trained, tmp_path):
    said = run("sweep", trained, "--truncation", "0.5:1", "--steps", 2, "--num", 50, "--out", tmp_path / "s")
    for text in ("threshold", "effective classes", "0.5", "none"):
        assert text in said
    report = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert report[0]["images"]["source"] == f"{trained} truncated at 0.5"
    assert report[0]["against"]["num"] == 100
    assert report[0]["features"]["name"] == "digits"
    assert {"frechet", "pr", "classes"} == set(report[0]["metrics"])
    again = open_source(trained).draw(50, 0, 250)
    assert len(next(again)[0]) == 50


def test_bad_sweeps(trained, tmp_path):
    assert "given as LOW:HIGH" in run("sweep", trained, "--truncation", "x", code=2)
    assert "is not a run: it holds no config.txt" in run("sweep", tmp_path, code=2)
    assert "there is no metric 'pp'" in run("sweep", trained, "--metrics", "pp", code=2)


def test_sample_with_truncation(trained, tmp_path):
    for name, options in (("a", []), ("b", ["--truncation", 0.3]), ("c", ["--truncation", 0.3])):
        run("sample", trained, "--num", 20, *options, "--out", tmp_path / f"{name}.npz")
    a, b, c = (np.load(tmp_path / f"{name}.npz")["x"] for name in "abc")
    np.testing.assert_array_equal(b, c)
    assert (a != b).any()
    assert "above 0" in run("sample", trained, "--truncation", 0, "--out", tmp_path / "d.png", code=2)


def test_interpolate_writes_a_strip_and_a_film(trained, tmp_path):
    run("interpolate", trained, "--from", "0/3", "--to", "1/8", "--frames", 7, "--out", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (7 * 28, 28)
    ends = ["--from", "0/3", "--to", "0/3", "--classes", "3,8", "--path", "linear", "--truncation", 0.5]
    run("interpolate", trained, *ends, "--frames", 4, "--out", tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as film:
        assert film.format == "GIF"


@loop_over(
    ("options", "message"),
    [
        (["--from", "3"], "--from takes a seed and an index separated by /, such as 0/1; got '3'"),
        (["--from", "0/-3"], "--from takes a seed and an index"),
        (["--classes", "3"], "--classes takes ids separated by commas, such as 0,1; got '3'"),
        (["--classes", "3,11"], "there is no class 11"),
        (["--path", "curved"], "there is no path 'curved'"),
        (["--out", "a.jpg"], "cannot write .jpg here"),
    ],
)
def test_bad_interpolations(trained, options, message):
    given = {"--from": "0/1", "--to": "0/2"} | dict(zip(options[::2], options[1::2], strict=True))
    assert message in run("interpolate", trained, *(word for pair in given.items() for word in pair), code=2)


def test_arithmetic_writes_a_row_for_each_mean_and_the_result(trained, tmp_path):
    run("arithmetic", trained, "--plus", "3,17,8", "--minus", "1,2", "--plus", "5", "--out", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (5 * 28, 4 * 28)
    said = run("arithmetic", trained, "--plus", "3,x", code=2)
    assert "--plus takes indices of images separated by commas, such as 0,1,2; got '3,x'" in said
    assert "there is no class 12" in run("arithmetic", trained, "--plus", 3, "--class", 12, code=2)
