from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loops import loop_over
from PIL import Image, ImageDraw
from tiny import recipe

from equipoise.config import components, override
from equipoise.core.grammar import differences, parse
from equipoise.core.schedules import Linear
from equipoise.core.types import Batch, ImageSpec, RunError
from equipoise.data import Digits, InfiniteBatches
from equipoise.generate import Generator
from equipoise.losses import R1, R2, Orthogonal
from equipoise.metrics import GaussianStats, digits_judge, judge_features
from equipoise.rules import Adam
from equipoise.runs import claim
from equipoise.train import GAN, d_step, g_step, train

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks import convolutions, cost, parzen, report, runs, small_data, stabilisers, train_step, which_recipe

DIGITS = ImageSpec(28, 1, 10)
CONFIGS = (
    {f"stabilisers: {name}": (stabilisers.plain(1.0), c) for name, c in stabilisers.techniques(1.0).items()}
    | {f"cost: {name}": (stabilisers.plain(1.0), c) for name, c in cost.VARIANTS.items()}
    | {f"small_data: {name}": (small_data.baseline(20, 1.0, width=2), c) for name, c in small_data.METHODS.items()}
)


# ---- what is compared ------------------------------------------------------------------------------------


@loop_over("name", CONFIGS)
def test_every_technique_takes_a_step_and_changes_what_it_says_alone(name):
    cfg, changes = CONFIGS[name]
    small = {"generator.width": 2, "discriminator.width": 2, "batch_size": 4}
    cfg = override(cfg, small)
    changed = override(cfg, changes)
    fields = {line.partition(":")[0].partition(".")[0] for line in differences(cfg, changed)}
    assert fields == {path.partition(".")[0] for path in changes}
    gan = GAN.build(changed, DIGITS)
    batch = Batch(torch.rand(4, 1, 28, 28) * 2 - 1, torch.arange(4))
    stats = d_step(gan, batch, 0) | g_step(gan, batch, 0)
    assert all(torch.isfinite(value).all() for value in stats.values())
    term = [type(t).__name__ for t in changed.terms if t.player != "G"]
    assert {f"D/{t}" for t in term} <= set(stats)


def test_instance_noise_is_gone_at_the_end_of_the_budget():
    noise = stabilisers.techniques(40.0)["instance noise"]["augment"].build()
    noise.at(20_000)
    assert noise.std == pytest.approx(0.05)
    noise.at(40_000)
    assert noise.std == 0


def test_lazy_penalties_are_timed_over_their_period():
    cfg = override(stabilisers.plain(1.0, width=2), {"batch_size": 4, "d_optim.lr": 0.0})
    batch = Batch(torch.rand(4, 1, 28, 28))
    lazy = cost.Variant(override(cfg, cost.VARIANTS["R1, every 16"]), batch)
    assert lazy.period == 16
    assert cost.Variant(cfg, batch).period == 1
    lazy.seconds()
    assert lazy.nimg == 16 * 4  # the next period starts with the penalty again


# ---- runs ------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A judge of 50 images against 100 digits."""
    judge = digits_judge()
    digits = Digits().build().read(np.arange(100)).transpose(0, 2, 3, 1)

    def reference(self, against):
        self.judge, self.stats = judge, GaussianStats(judge_features(judge, digits))

    monkeypatch.setattr(runs.Reference, "__init__", reference)
    monkeypatch.setattr(runs, "SAMPLES", 50)
    fast = {"batch_size": 8, "report.log_kimg": 0.008, "ema.halflife_kimg": 0.0, "g_optim.lr": 0.02, "d_optim.lr": 0.02}
    return override(stabilisers.plain(0.064, width=2), fast)


def trained(cfg, folder, at):
    claim(folder, cfg)
    runs.train_and_judge(folder, "digits", at)
    return runs.Judged.load(folder, "digits", at)


def test_a_run_in_stages_ends_where_one_in_one_go_does(small, tmp_path, capsys):
    whole = trained(small, tmp_path / "whole", (0.064,))
    stages = trained(small, tmp_path / "stages", (0.032, 0.064))
    assert [verdict.kimg for verdict in stages.verdicts] == [0.032, 0.064]
    assert stages.verdicts[1] == whole.verdicts[0]
    assert stages.verdicts[0].distance != whole.verdicts[0].distance
    assert stages.seconds_per_kimg > 0
    written = (tmp_path / "stages" / "judged.json").stat().st_mtime_ns
    assert trained(small, tmp_path / "stages", (0.032, 0.064)) == stages
    assert (tmp_path / "stages" / "judged.json").stat().st_mtime_ns == written  # nothing was done again
    with pytest.raises(ValueError, match=r"was trained to 0\.064 kimg before it was judged at 0\.016"):
        trained(small, tmp_path / "stages", (0.016, 0.064))


def test_divergence_is_a_result_and_other_errors_are_not(small, tmp_path, capsys):
    diverging = override(small, {"d_optim.lr": 1e30, "g_optim.lr": 1e30})
    judged = trained(diverging, tmp_path / "run", (0.032, 0.064))
    assert judged.failure == "diverged"
    assert judged.verdicts == []
    assert "training diverged" in runs.line(judged)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "samples").write_text("in the way")
    with pytest.raises(RunError, match="cannot write to"):
        trained(small, tmp_path / "full", (0.064,))


def test_another_reference_or_other_stages_are_judged_anew(tmp_path):
    known = runs.Judged("digits", [runs.Verdict(1, 2.0, 0.9, 9.0), runs.Verdict(2, 1.0, 0.9, 9.0)], None, 0.5)
    known.save(tmp_path)
    assert runs.Judged.load(tmp_path, "digits", (1, 2)) == known
    assert runs.Judged.load(tmp_path, "digits", (1, 2, 3)) == known
    assert runs.Judged.load(tmp_path, "digits", (1, 3)) == runs.Judged("digits")
    assert runs.Judged.load(tmp_path, "mnist.npz", (1, 2)) == runs.Judged("mnist.npz")
    assert runs.Judged.load(tmp_path / "nowhere", "digits", (1,)) == runs.Judged("digits")


def judged(distance, classes=9.0, top=0.9, diverged=None):
    verdicts = [] if diverged else [runs.Verdict(60, distance, top, classes)]
    return runs.Judged("digits", verdicts, diverged, 2.0)


def test_failures_are_told_apart_and_the_diverged_count_in_no_mean():
    found = [judged(10.0), judged(20.0, classes=4.0), judged(0, diverged="training diverged: D/loss is nan")]
    assert [run.failure for run in found] == [None, "collapsed", "diverged"]
    assert judged(1.0, top=0.4).failure == "collapsed"
    assert stabilisers.failures(found) == "1/3 diverged, 1/3 collapsed"
    assert stabilisers.failures(found[:1]) == "0/1"
    text = stabilisers.table({"plain": {}}, {"plain": found}, runs.Verdict(0, 0.5, 0.97, 10.0))
    row = text.splitlines()[3]
    assert "| 15.00 ± 7.07 |" in row
    assert row.endswith("| 2.00 ± 0.00 | 1/3 diverged, 1/3 collapsed |")


# ---- reports ---------------------------------------------------------------------------------------------


def test_tables_and_spreads():
    assert report.markdown(["a", "b"], [["1", "x|y"]]) == "| a | b |\n| --- | --- |\n| 1 | x\\|y |\n"
    assert report.spread([1.0, 3.0], ".1f") == "2.0 ± 1.4"  # over n - 1
    assert report.spread([1.0], ".1f") == "1.0"
    assert report.spread([], ".1f") == "-"


def test_changes_are_written_as_on_the_command_line():
    assert stabilisers.in_words({"terms": (R1(every=1), R2()), "head.san": True}) == (
        "terms=[R1(every=1),R2] head.san=true"
    )
    assert report.brief(Linear(start=0.1, end=0.0, kimg=5.0)) == "Linear(start=0.1,end=0.0,kimg=5.0)"
    for cfg, changes in CONFIGS.values():
        written = (item.partition("=") for item in stabilisers.in_words(changes).split())
        read = {path: parse(text, components()) for path, _, text in written}
        assert override(cfg, read) == override(cfg, changes)


@loop_over("top", [0.013, 0.99, 1.0, 1.05, 7.3, 60.0, 150.0, 300.0, 999.0])
def test_ticks_are_few_round_and_within(top):
    found = report.ticks(top)
    assert 3 <= len(found) <= 6
    assert found[0] == 0
    assert 0.7 * top <= found[-1] <= top * (1 + 1e-9)


def test_machine_says_what_a_number_must_stand_next_to():
    about = json.loads(json.dumps(report.machine()))
    assert about["torch"] == torch.__version__
    assert set(about) == {"date", "commit", "torch", "python", "processor", "threads"}
    assert about["processor"]


def test_a_plot_puts_points_where_they_belong():
    picture = Image.new("RGB", (800, 700), "white")
    plot = report.Plot(ImageDraw.Draw(picture), 40, "title", "x", 10.0, 2.0)
    plot.line([(0, 2.0), (10, 2.0)], (255, 0, 0), 3)
    assert plot.at(0, 0) == (40, 290)
    assert plot.at(10, 2) == (360, 50)
    assert picture.getpixel((report.SCALE * 200, report.SCALE * 50)) == (255, 0, 0)


def test_a_labelled_grid_shows_every_source_and_black_for_none():
    white = np.full((4, 28, 28, 1), 255, np.uint8)
    picture = np.asarray(report.labelled_grid([("a", white), ("b", None)], columns=2, across=2, shape=(56, 56)))
    assert (picture[18:74, 12:68] == 255).all()
    assert (picture[18:74, 80:136] == 0).all()


def test_curves_of_several_seeds():
    curves = [[(1.0, 5.0), (2.0, 3.0)], [(1.0, 7.0), (2.0, 4.0)], [(1.0, 6.0)]]
    assert small_data.median(curves) == [(1.0, 6.0), (2.0, 3.5)]
    assert small_data.curve_at([(1.0, 0.1), (2.03, 0.2), (3.0, 0.3)], 2.0) == 0.2
    assert small_data.curve_at([], 2.0) is None
    assert small_data.figure({"ADA": curves, "none": []}, {"ADA": [], "none": []}, 2.0).size == (800, 340)


# ---- Parzen ----------------------------------------------------------------------------------------------


def test_parzen_ranks_centroids_above_real_digits(tmp_path, capsys):
    """Theis et al. 2016, table 1, on digits that the library ships."""
    digits = Digits().build()
    x = digits.read(np.random.default_rng(0).permutation(len(digits)))[:, 0]
    sets = {"x_train": x[:2000], "x_test": x[2000:3300]}
    np.savez(tmp_path / "mnist.npz", **sets, **{k.replace("x", "y"): np.arange(len(v)) % 10 for k, v in sets.items()})
    parzen.main([str(tmp_path / "mnist.npz"), "--num", "200", "--steps", "2", "--out", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())["found"]
    assert found["k-means"]["nats"] > found["training images"]["nats"] + 50
    assert "| k-means |" in capsys.readouterr().out


# ---- the two loops of train_step -------------------------------------------------------------------------


def test_the_eager_loop_computes_what_ours_does():
    """Same z, same images, every term: after three iterations the weights agree."""
    cfg = override(
        recipe(),
        {
            "terms": (
                R1(gamma=0.1, every=2),
                Orthogonal(strength=0.01, every=3),
                Orthogonal(strength=0.01, every=2, player="G"),
            ),
            "d_steps": 2,
            "g_batches": 2,
            "g_optim": Adam(lr=1e-3, weight_decay=0.01),
        },
    )
    gans = [GAN.build(cfg, DIGITS) for _ in range(2)]
    loops = train_step.eager(gans[0]), train_step.ours(gans[1])
    dataset = cfg.data.build()
    for i in range(3):
        batch = next(InfiniteBatches(dataset, cfg.batch_size, seed=i))
        for loop in loops:
            loop(batch, i * 2 * cfg.batch_size)
    for net in ("G", "D"):
        a, b = (torch.nn.utils.parameters_to_vector(getattr(gan, net).parameters()).detach() for gan in gans)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_every_loop_is_timed_and_counted(tmp_path, monkeypatch, capsys):
    faster = "compute.precision=bf16 compute.convolutions=measured"
    ways = ["--ways=", f"--ways={faster}"]
    tiny = f"{Path(__file__).parent / 'tiny.py'}:recipe"
    monkeypatch.setattr(train_step, "SIDE", 8)
    monkeypatch.setattr(train_step, "peaks", lambda _, names: dict.fromkeys(names, 1.0))
    arguments = ["train_step", f"--recipe={tiny}", "--rounds=2", "--warmup=1", f"--out={tmp_path / 'a.json'}", *ways]
    monkeypatch.setattr(sys, "argv", [*arguments, "terms=[R1]"])
    train_step.main()
    written = json.loads((tmp_path / "a.json").read_text())
    assert [row["loop"] for row in written["loops"]] == ["eager", "ours", faster]
    assert [row["rate"] for row in written["loops"]] == ["float32", "float32", "bf16"]
    for row in written["loops"]:
        assert row["seconds"] == statistics.median(written["rounds"][row["loop"].replace("ours", "")])
        assert row["images_per_second"] == pytest.approx(8 / row["seconds"])
    assert "compute.precision=bf16" in capsys.readouterr().out


def test_every_way_of_a_convolution_is_timed(tmp_path, monkeypatch, capsys):
    wide = convolutions.LAYERS[0]._replace(name="small", channels=(32, 32))
    monkeypatch.setattr(convolutions, "LAYERS", (wide, convolutions.LAYERS[4]._replace(channels=(32, 1))))
    monkeypatch.setattr(sys, "argv", ["convolutions", "--batch=2", "--rounds=2", f"--out={tmp_path / 'a.json'}"])
    convolutions.main()
    layers = json.loads((tmp_path / "a.json").read_text())["layers"]
    assert len(layers) == 2 * 2 * 2  # layers, precisions, layouts
    assert {tuple(row["seconds"]) for row in layers} == {("torch", "halves", "taps"), ("torch", "fold", "halves")}
    assert all(len(times) == 2 and min(times) > 0 for row in layers for times in row["seconds"].values())
    assert "taps, ms" in capsys.readouterr().out


# ---- recipes at equal CPU time ---------------------------------------------------------------------------


def test_generators_are_kept_at_their_cpu_minutes(tmp_path, monkeypatch):
    """The clock moves by 20 s each time it is read: once an iteration, and twice to keep a generator."""
    ticks = iter(range(0, 100_000, 20))
    monkeypatch.setattr(which_recipe.time, "process_time", lambda: float(next(ticks)))
    cfg = recipe()
    marks = which_recipe.Marks(tmp_path / "marks", [3, 1], cfg)
    with pytest.raises(which_recipe.EnoughError):
        train(override(cfg, {"total_kimg": 1.0}), tmp_path / "run", events=[marks])
    each = cfg.batch_size / 1000
    assert marks.kimg == pytest.approx([3 * each, 8 * each])
    kept = Generator.from_pretrained(marks.at(1))
    assert kept.nimg == 1000 * marks.kimg[1]
    assert marks.at(1).name == "3.safetensors"
