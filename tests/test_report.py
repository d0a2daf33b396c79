"""The report of a run: one file, its curves, its words on health, and its warnings."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from loops import loop_over
from PIL import Image
from runs import lines
from tiny import recipe
from typer.testing import CliRunner

from equipoise.augment import ADA
from equipoise.cli.app import app
from equipoise.config import components, override, parse
from equipoise.core.types import ImageSpec
from equipoise.data import Images
from equipoise.doctor import Evidence, examine
from equipoise.generate import Generator
from equipoise.losses import R1, Hinge, LeastSquares, NonSaturating, RelativisticPairing, Wasserstein
from equipoise.models import Auxiliary, Head, SANDigitsGenerator
from equipoise.recipes import load
from equipoise.rules import Evaluate
from equipoise.runs import Run
from equipoise.train import train
from equipoise.view import (
    Band,
    Chart,
    chart,
    discriminator,
    duration,
    groups,
    remarks,
    report,
    short,
    undecided,
    write_report,
)
from equipoise.view.remarks import of_speed

VOID = {"meta", "link", "img", "br", "polyline", "circle", "line", "rect"}


class Read(HTMLParser):
    """The tags of a page, which must be closed in order, its addresses, and its text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.words = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an evaluation and four grids, in a folder whose name is markup."""
    folder = tmp_path_factory.mktemp("runs") / "<b>&amp;"
    evaluation = Evaluate(every_kimg=0.1, num=20, features="digits")
    train(override(recipe(), {"report.evaluation": evaluation}), folder)
    return folder


def test_one_file_says_everything_and_needs_nothing_else(run):
    assert write_report(run) == run / "report.html"
    text = (run / "report.html").read_text("utf-8")
    page = Read(text)
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert {"script", "iframe", "link", "object"}.isdisjoint(page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert "<b>&amp;" not in text.replace("&lt;b&gt;&amp;amp;", "")
    assert len(text) < 250_000
    assert len(page.addresses) == len(list((run / "samples").glob("*.png")))
    for name in lines(run)[-1].keys() - {"nimg", "kimg"}:
        assert name.removeprefix("eval/") in page.words, name
    assert "SANDigitsGenerator(z_dim=4, width=2)" in page.words
    assert (run / "config.txt").read_text("utf-8").rstrip() in page.words
    assert "0.16 of 0.16 thousand real images (100%)" in page.words
    best = min(line["eval/frechet"] for line in lines(run) if "eval/frechet" in line)
    assert f"{best:.4g} at" in page.words


def test_the_command_writes_where_it_is_asked(run, tmp_path):
    def command(*arguments):
        result = CliRunner().invoke(app, ["report", *map(str, arguments)])
        return result.exit_code, result.output

    assert command(run, "--out", tmp_path / "new" / "a.html") == (0, f"wrote {tmp_path / 'new' / 'a.html'}\n")
    Read((tmp_path / "new" / "a.html").read_text("utf-8"))
    code, said = command(run, "--out", tmp_path / "a.pdf")
    assert code == 2
    assert "give --out NAME.html" in said
    code, said = command(tmp_path)
    assert code == 2
    assert "is not a run: it holds no config.txt" in said


def test_a_run_that_has_just_begun_has_a_report(run, tmp_path):
    shutil.copy(run / "config.txt", tmp_path)
    page = Read(report(tmp_path))
    assert "There are no statistics yet" in page.words
    assert "The run has not written a grid yet." in page.words
    assert page.addresses == []
    (tmp_path / "stats.jsonl").write_text(
        '{"nimg": 8, "kimg": 0.008, "D/loss": 1.0, "images_per_second": 4}\nrubbish\n'
    )
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "000000000008.png").write_bytes(b"half a pict")
    page = Read(report(tmp_path))
    assert "1 damaged line (2) of stats.jsonl left out." in page.words
    assert "not finished: 0.008 of 0.16 kimg" in page.words


# ---- curves ----------------------------------------------------------------------------------------------


def numbers(text, pattern):
    return [tuple(map(float, found)) for found in re.findall(pattern, text)]


def test_a_curve_is_where_its_values_are():
    """Three points of a line are on a line; a band contains exactly the points that are in it."""
    svg = chart(Chart({"a": [(0, 0.0), (5, 1.0), (10, 2.0)]}, Band(0.5, 1.5, "fine")))
    Read(svg)
    (start, middle, end) = numbers(re.search(r'points="([^"]*)"', svg)[1], r"([\d.]+),([\d.]+)")
    assert start[0] < middle[0] < end[0]
    assert start[1] > middle[1] > end[1]  # pixels are counted from the top
    assert middle == pytest.approx([(start[i] + end[i]) / 2 for i in (0, 1)], abs=0.6)
    ((top, height),) = numbers(svg, r'class="band"[^>]* y="([\d.]+)"[^>]* height="([\d.]+)"')
    assert end[1] < top < middle[1] < top + height < start[1]
    assert top == pytest.approx((end[1] + middle[1]) / 2, abs=0.2)


def test_wide_ranges_are_logarithmic_and_an_outlier_does_not_flatten_the_rest():
    svg = chart(Chart({"a": [(0, 1.0), (1, 100.0), (2, 10_000.0)]}))
    ys = [y for _, y in numbers(re.search(r'points="([^"]*)"', svg)[1], r"([\d.]+),([\d.]+)")]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert ">10k<" in svg
    points = [(i, math.sin(i)) for i in range(200)]
    points[50] = (50, -1000.0)
    svg = chart(Chart({"a": points}))
    ys = [y for _, y in numbers(re.search(r'points="([^"]*)"', svg)[1], r"([\d.]+),([\d.]+)")]
    assert max(ys[:50]) - min(ys[:50]) > 50


def test_a_long_curve_keeps_its_extremes_and_a_short_one_is_whole():
    points = [(float(i), 0.5) for i in range(20_000)]
    points[777], points[15_001] = (777.0, 1.0), (15_001.0, 0.0)
    svg = chart(Chart({"a": points}))
    assert len(svg) < 6000
    ys = {y for _, y in numbers(re.search(r'points="([^"]*)"', svg)[1], r"([\d.]+),([\d.]+)")}
    assert len(ys) == 3
    for short_one in ([(0.0, 1.0)], [(1.0, 0.0), (2.0, 0.0)], [(0.5, -3.0), (1.0, 1e9)]):
        Read(chart(Chart({"<a>": short_one})))


# ---- health ----------------------------------------------------------------------------------------------


@loop_over(
    ("loss", "d", "g"),
    [
        (NonSaturating(), 2 * math.log(2), math.log(2)),
        (Hinge(), 2, 0),
        (LeastSquares(), None, None),
        (RelativisticPairing(), math.log(2), math.log(2)),
        (Wasserstein(), 0, 0),
    ],
)
def test_a_d_that_cannot_tell_has_the_loss_that_the_papers_say(loss, d, g):
    found = undecided(loss)
    if d is None:  # no constant does better
        c = torch.linspace(-2, 2, 4001)
        assert found[0] == pytest.approx(float(loss.d(c, c).min()), abs=1e-4)
    else:
        assert found == pytest.approx((d, g), abs=1e-5)


def stroked(name):
    return re.sub("^(D|G|augment|eval)_", r"\1/", name)


def made(config=None, folder=Path("none"), **curves):
    """A run with these curves, a value a kimg. In a name of two words "_" stands for the stroke."""
    named = {stroked(name): values for name, values in curves.items()}
    stats = [
        {"nimg": 1000 * (i + 1), "kimg": i + 1.0} | {name: values[i] for name, values in named.items()}
        for i in range(len(next(iter(curves.values()))))
    ]
    return Run(folder, config or replace(recipe(), total_kimg=float(len(stats))), stats)


def test_every_statistic_is_in_one_chart_and_those_that_belong_together_share_it():
    names = ["D_loss", "G_loss", "D_real", "D_fake", "D_sign_real", "D_R1", "augment_p", "augment_r", "mine", "G_lag"]
    cfg = replace(recipe(), terms=(R1(),), augment=ADA(target=0.5))
    found = groups(made(cfg, **{name: [1.0, 2.0] for name in names}))
    charts = [list(group.chart.curves) for group in found]
    assert sorted(name for each in charts for name in each) == sorted(map(stroked, names))
    assert ["D/loss", "G/loss"] in charts
    assert ["D/real", "D/fake"] in charts
    assert ["augment/p", "augment/r"] in charts
    assert all(group.healthy.endswith(".") for group in found)
    sign = next(group for group in found if "D/sign_real" in group.chart.curves)
    assert sign.chart.band[:2] == pytest.approx((0.4, 0.6))
    assert next(g for g in found if "D/R1" in g.chart.curves).title == "R1 of D"


@loop_over(
    ("changes", "level"),
    [
        ({}, 2.0),
        ({"loss": Wasserstein(), "head": Head()}, None),
        ({"head": Head(Auxiliary())}, None),
    ],
)
def test_the_level_of_the_loss_is_drawn_where_it_holds(changes, level):
    group = groups(made(override(recipe(), changes), D_loss=[1.0, 1.0]))[0]
    assert (None if group.chart.band is None else group.chart.band.low) == level


# ---- warnings --------------------------------------------------------------------------------------------

LEVEL = [0.6] * 40


def said(config=None, **curves):
    """Warnings, and what the doctor finds, from statistics alone."""
    run = made(config, **curves)
    found = examine(Evidence.of(run.stats, run.config))
    return [*of_speed(run), *(f"{finding.symptom.title}: {finding.evidence}" for finding in found)]


def test_a_healthy_run_is_not_warned_about():
    assert said(D_sign_real=LEVEL, D_real=LEVEL, D_fake=LEVEL, images_per_second=[100.0] * 40) == []


@loop_over(
    ("curves", "words"),
    [
        ({"D_sign_real": [0.5] * 20 + [1.0] * 20}, "D calls nearly all real images real"),
        ({"D_real": [1.0] * 20 + [10.0 * i for i in range(20)]}, "D/real has grown to"),
        ({"D_fake": [-1.0] * 20 + [-10.0 * i for i in range(20)]}, "D/fake has grown to -"),
        ({"images_per_second": [100.0] * 25 + [40.0] * 15}, "speed fell from 100 to 40"),
    ],
)
def test_a_sign_of_trouble_is_named(curves, words):
    (text,) = said(**curves)
    assert words in text


@loop_over(
    ("values", "warned"),
    [
        ([90.0, 50.0, 60.0, 70.0, 80.0], True),
        ([90.0, 80.0, 60.0, 50.0, 51.0], False),
        ([90.0, 50.0, 52.0, 51.0, 53.0], False),
    ],
)
def test_a_run_that_got_worse_is_pointed_to_its_best(values, warned):
    cfg = override(recipe(), {"report.evaluation": Evaluate(features="digits")})
    found = said(config=cfg, eval_frechet=values)
    assert bool(found) == warned
    if warned:
        assert "50 at 2 kimg" in found[0]


def test_a_voided_guarantee_and_other_threads_are_warned_about(run, tmp_path):
    cfg, _ = load("wgan_gp")
    D = discriminator(made(cfg, D_loss=[1.0]), ImageSpec(32, 3))
    assert next(D.parameters()).is_meta
    bare = replace(cfg, terms=())
    shutil.copytree(run, tmp_path / "a")
    (tmp_path / "a" / "environment.txt").write_text("device: cpu\nthreads: 1\n\ndevice: cpu\nthreads: 2\n")
    found = remarks(Run(tmp_path / "a", bare, made(bare, D_loss=[1.0]).stats), D)
    assert any("nothing bounds D's Lipschitz constant" in text for text in found)
    assert any("started with 1, 2 threads" in text for text in found)


# ---- words -----------------------------------------------------------------------------------------------


def test_a_config_in_short_is_the_config():
    for cfg in (recipe(), load("ada")[0], load("progan_small")[0]):
        assert parse(short(cfg), components()) == cfg
    assert short(Images(path="my photos", resolution=32)) == "Images(path='my photos', resolution=32)"


def test_the_time_of_training_is_the_sum_over_windows():
    assert duration(made(images_per_second=[100.0, 50.0, 200.0])) == pytest.approx(10 + 20 + 5)


# ---- notebooks -------------------------------------------------------------------------------------------


@loop_over(("resolution", "images"), [(28, 36), (256, 4), (1024, 1)])
def test_a_generator_shows_its_grid_in_a_notebook(resolution, images):
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def forward(self, z, y=None):
            return z[:, :1, None, None].expand(-1, 1, resolution, resolution).tanh()

    settings = SANDigitsGenerator(z_dim=4)
    G = Generator(Flat().requires_grad_(False), settings, ImageSpec(resolution, 1), nimg=1234)
    text = G._repr_html_()
    Read(text)
    content = base64.b64decode(re.search(r"base64,([^\"]*)", text)[1])
    assert Image.open(io.BytesIO(content)).size == (resolution * math.isqrt(images),) * 2
    assert "SANDigitsGenerator(z_dim=4" in text
    assert "1,234 real images" in text
