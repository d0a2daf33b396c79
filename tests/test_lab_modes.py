"""`ring`, `grid`, `swiss_roll`: what is measured, what is watched, ten settings side by side, and other processes."""

from __future__ import annotations

import glob
import json
import math
import multiprocessing
import os
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import entropy
from typer.testing import CliRunner

from equipoise.augment import ADA, InstanceNoise
from equipoise.cli.app import app
from equipoise.core.plots import encode
from equipoise.core.randomness import Purpose
from equipoise.core.schedules import Cosine, Linear
from equipoise.core.types import RunError
from equipoise.data import Digits, Grid, Line, Mixture1D, Points, Ring, SwissRoll
from equipoise.lab import COMPARING, load
from equipoise.lab.base import plain
from equipoise.lab.parallel import spread
from equipoise.lab.points import modes as shared
from equipoise.lab.points.gan import PointGAN, plain_gan
from equipoise.lab.points.grid import GridGAN
from equipoise.lab.points.measures import measured, measures_of, real_points
from equipoise.lab.points.modes import Job, falling, jobs_of, summary, watch
from equipoise.lab.points.ring import RingGAN
from equipoise.lab.points.settings import SETTINGS
from equipoise.lab.points.swiss_roll import SwissRollGAN
from equipoise.lab.progress import listener, say
from equipoise.losses import R1, Hinge, LeastSquares
from equipoise.models import MLPDiscriminator, MLPGenerator
from equipoise.rules import Adam, RMSprop


def tiny(cfg, **changes):
    small = replace(
        cfg,
        generator=MLPGenerator(z_dim=2, width=12, depth=1, output="linear"),
        discriminator=MLPDiscriminator(width=12, depth=1),
        batch_size=16,
        total_kimg=0.16,
    )
    return replace(small, **changes)


def short(kind, **changes):
    """An experiment that takes ten iterations."""
    return kind(**{"gan": tiny(kind().gan), "moments": 3, "samples": 60, "workers": 1} | changes)


@pytest.fixture(scope="module")
def found():
    return {kind: short(kind).run() for kind in (RingGAN, GridGAN, SwissRollGAN)}


def in_forks(monkeypatch):
    """Processes that import nothing anew. What a new interpreter needs is asked for: the way, and tasks as pickles."""
    fork = multiprocessing.get_context("fork")

    def context(way):
        assert way == "spawn"
        return fork

    def process(args, **options):
        pickle.dumps(args[1])
        return fork_process(args=args, **options)

    fork_process = fork.Process
    monkeypatch.setattr(multiprocessing, "get_context", context)
    monkeypatch.setattr(fork, "Process", lambda **options: process(**options), raising=False)


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


# ---- measures, from the stored samples -------------------------------------------------------------------


def matched(x, real):
    costs = np.linalg.norm(x[:500, None] - real[None, :500], axis=-1)
    return costs[linear_sum_assignment(costs)].mean()


def by_hand(centres, std, x, real):
    nearest = [min((math.dist(point, centre), k) for k, centre in enumerate(centres)) for point in x]
    near = [k for distance, k in nearest if distance <= 3 * std]
    shares = [near.count(k) / max(len(near), 1) for k in range(len(centres))]
    kl = entropy(shares, [1 / len(centres)] * len(centres)) if near else math.log(len(centres))
    return {
        "modes": len(set(near)),
        "high_quality": len(near) / len(x),
        "kl": kl,
        "wasserstein": matched(x, real),
    }


def on_a_spiral(x, real):
    t = np.linspace(1.5 * np.pi, 4.5 * np.pi, 8001)
    curve = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 7.5
    s = 0.25 / 7.5
    squares = ((x[:, None] - curve) ** 2).sum(-1)
    density = np.trapezoid(np.exp(-squares / (2 * s**2)) / (2 * np.pi * s**2), dx=1 / 8000, axis=1)
    return {
        "on_roll": (squares.min(1) <= (3 * s) ** 2).mean(),
        "log_density": np.log(density).mean() if (density > 0).all() else None,
        "wasserstein": matched(x, real),
    }


RING = [(2 * math.cos(k * math.pi / 4), 2 * math.sin(k * math.pi / 4)) for k in range(8)]
GRID = [(x, y) for y in range(-4, 5, 2) for x in range(-4, 5, 2)]
REFERENCE = {
    RingGAN: lambda x, real: by_hand(RING, 0.02, x, real),
    GridGAN: lambda x, real: by_hand(GRID, 0.05, x, real),
    SwissRollGAN: on_a_spiral,
}


@pytest.mark.parametrize("kind", REFERENCE)
def test_measures_are_those_of_the_stored_samples(kind, found):
    numbers = found[kind]
    real = numbers["real"].double().numpy()
    for run in numbers["runs"]:
        for moment in run["moments"]:
            expected = REFERENCE[kind](moment["samples"].double().numpy(), real)
            assert set(moment["measures"]) == set(expected)
            for name, value in expected.items():
                if value is not None:
                    assert moment["measures"][name] == pytest.approx(value, abs=1e-6, rel=1e-4), name


@pytest.mark.parametrize("kind", REFERENCE)
def test_measures_of_points_that_are_nearly_right(kind):
    of = kind().gan.data.of
    real, x = (real_points(of, 520, key) for key in (1, 2))
    x = x + 0.03 * torch.randn(x.shape)
    x[:80] = x[0]
    assert measured(of, x, real) == pytest.approx(REFERENCE[kind](x.double().numpy(), real.double().numpy()), abs=1e-4)


def test_real_points_are_new_and_measured_as_such():
    for kind, modes in ((RingGAN, 8), (GridGAN, 25)):
        numbers = short(kind, samples=1000, moments=1, beside=None, gan=tiny(kind().gan, total_kimg=0.01)).run()
        assert numbers["truth"]["modes"] == modes
        assert numbers["truth"]["high_quality"] == pytest.approx(0.989, abs=0.01)
        assert 0 < numbers["truth"]["kl"] < 0.03
        real, *others = (real_points(kind().gan.data.of, 1000, key) for key in range(1, 6))
        distances = [matched(x.double().numpy(), real.double().numpy()) for x in others]
        assert numbers["truth"]["wasserstein"] == pytest.approx(np.mean(distances), abs=1e-6)
    first, second = (real_points(Ring(), 100, key) for key in (1, 2))
    seen = PointGAN(tiny(plain_gan())).batch(100, Purpose.POINTS).x.flatten(1)
    for a, b in ((first, second), (first, seen), (second, seen)):
        assert not (a[:, None] == b).all(-1).any()


def test_points_that_are_not_finite_have_no_measures_and_other_data_have_distances_alone():
    real, x = (real_points(Ring(), 20, key) for key in (1, 2))
    x[3, 1] = math.inf
    assert measured(Ring(), x, real) == dict.fromkeys(measures_of(Ring()))
    assert list(measures_of(Line())) == ["wasserstein"]
    assert measures_of(Ring(num=3))["modes"].title == "modes of 3"


# ---- watching --------------------------------------------------------------------------------------------


def test_moments_are_the_gan_that_trains_and_come_more_often_early():
    cfg = tiny(plain_gan(), total_kimg=0.32)
    moments = list(watch(Job("minimax", cfg, moments=4, samples=30, surfaces=True)))
    assert [moment["nimg"] for moment in moments] == [0, 32, 96, 192, 320]  # (k/4)², in whole iterations
    gan = PointGAN(cfg)
    for moment in moments:
        while gan.nimg < moment["nimg"]:
            gan.iterate()
        assert torch.equal(moment["samples"], gan.samples(30))
        left, right, bottom, top = moment["surface"]["extent"]
        corner = gan.value(torch.tensor([[left, bottom], [right, bottom], [right, top]]))
        values = moment["surface"]["values"]
        assert torch.stack([values[0, 0], values[0, -1], values[-1, -1]]).allclose(corner, atol=1e-6)
        assert left < -2 < 2 < right
        assert bottom < -2 < 2 < top


def test_learning_rates_fall_to_nothing_unless_they_are_schedules():
    line = Linear(start=1e-3, end=1e-4, kimg=3.0)
    cfg = replace(plain_gan(), total_kimg=40.0, g_optim=RMSprop(lr=2e-3), d_optim=Adam(lr=line))
    fallen = falling(cfg)
    assert fallen.g_optim == RMSprop(lr=Cosine(2e-3, 0.0, kimg=40.0))
    assert fallen.d_optim == cfg.d_optim
    assert replace(fallen, g_optim=cfg.g_optim) == cfg
    assert fallen.g_optim.lr(20_000) == pytest.approx(1e-3)
    for decay in (True, False):
        jobs = jobs_of(RingGAN(decay=decay))
        assert all((job.cfg == falling(job.cfg)) is decay for job in jobs)


def test_a_gan_that_diverged_is_looked_at_a_last_time():
    adam = Adam(lr=1e30)
    gan = tiny(SETTINGS["R1"](plain_gan()), loss=LeastSquares(), g_optim=adam, d_optim=adam)
    experiment = short(RingGAN, gan=gan, decay=False)
    numbers = experiment.run()
    json.dumps(numbers, default=plain, allow_nan=False)
    for run in numbers["runs"]:
        *before, last = run["moments"]
        assert last["diverged"]
        assert last["samples"] is None
        assert set(last["measures"].values()) == {None}
        assert not any(moment["diverged"] for moment in before)
        assert 0 < last["nimg"] < 160
    assert experiment.table(numbers).rows[1] == ["this GAN", *["1 of 1 diverged"] * 4]
    pictures = experiment.draw(numbers)
    assert set(pictures) == {"ring", "ring_measures", "ring_training"}
    assert encode(pictures["ring"])[0] == "png"


# ---- which GANs ------------------------------------------------------------------------------------------


def test_a_gan_and_the_one_beside_it_differ_in_the_setting_alone():
    minimax, r1 = jobs_of(RingGAN(decay=False))
    assert (r1.setting, minimax.setting) == ("R1", "minimax")
    assert r1.cfg == RingGAN().gan
    assert minimax.cfg == SETTINGS["minimax"](RingGAN().gan)
    assert [job.setting for job in jobs_of(RingGAN(beside=None))] == ["R1"]
    assert [job.setting for job in jobs_of(RingGAN(beside="R1"))] == ["R1"]  # not twice
    assert RingGAN(beside=R1()) == RingGAN(beside="R1")  # the command line reads the penalty
    own = RingGAN(gan=replace(RingGAN().gan, loss=Hinge()))
    assert [job.setting for job in jobs_of(own)] == ["minimax", "this GAN"]


def test_a_comparison_is_of_all_settings_and_seeds_and_changes_nothing_else():
    gan = replace(RingGAN().gan, seed=7, augment=InstanceNoise(std=0.1), total_kimg=3.0)
    jobs = jobs_of(RingGAN(gan=gan, compare=True, seeds=2))
    assert [(job.setting, job.cfg.seed) for job in jobs] == [(name, 7 + i) for name in SETTINGS for i in (0, 1)]
    for job in jobs:
        assert job.cfg == replace(SETTINGS[job.setting](falling(gan)), seed=job.cfg.seed)
    for name in COMPARING:
        assert "compare" in {field.name for field in fields(load(name))}


@pytest.mark.parametrize("kind", REFERENCE)
def test_equal_settings_find_equal_numbers_on_any_number_of_threads(kind, found, two_threads):
    random = torch.get_rng_state()
    again = short(kind).run()
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), random)
    assert json.dumps(again, default=plain) == json.dumps(found[kind], default=plain)
    other = short(kind, gan=replace(short(kind).gan, seed=1)).run()
    assert torch.equal(other["real"], again["real"])
    assert not torch.equal(other["runs"][0]["moments"][-1]["samples"], again["runs"][0]["moments"][-1]["samples"])


def test_a_comparison_in_two_processes_finds_what_one_finds(monkeypatch):
    in_forks(monkeypatch)
    monkeypatch.setattr(shared, "SETTINGS", {name: SETTINGS[name] for name in ("minimax", "R1")})
    numbers = {}
    for workers in (1, 2):
        gan = tiny(SETTINGS["R1"](plain_gan()))
        experiment = RingGAN(gan=gan, compare=True, seeds=2, moments=3, samples=60, workers=workers)
        numbers[workers] = experiment.run()
    assert multiprocessing.active_children() == []
    assert json.dumps(numbers[1], default=plain) == json.dumps(numbers[2], default=plain)
    runs = numbers[2]["runs"]
    assert [(run["setting"], run["seed"]) for run in runs] == [(name, i) for name in ("minimax", "R1") for i in (0, 1)]
    for run in runs:
        assert ["samples" in moment for moment in run["moments"]] == [False, False, False, True]
    finals = [run["moments"][-1]["samples"] for run in runs]
    assert all(not torch.equal(a, b) for i, a in enumerate(finals) for b in finals[:i])
    rows = {row[0]: row[1:] for row in experiment.table(numbers[2]).rows}
    assert list(rows) == ["minimax", "R1", "real points"]
    distances = [run["moments"][-1]["measures"]["wasserstein"] for run in runs[2:]]
    assert rows["R1"][-1] == f"{np.mean(distances):.2f} ({min(distances):.2f}–{max(distances):.2f})"
    assert set(experiment.draw(numbers[2])) == {"ring_compare", "ring_compare_seeds"}


def test_a_row_of_the_table_is_mean_and_range():
    measures = measures_of(Ring())
    assert summary(measures["modes"], [8, 7, 8]) == "7.67 (7–8)"
    assert summary(measures["kl"], [0.1, 0.3, 0.11]) == "0.17 (0.10–0.30)"
    assert summary(measures["high_quality"], [0.957]) == "96%"
    assert summary(measures["wasserstein"], [0.5, None, None]) == "2 of 3 diverged"


# ---- other processes -------------------------------------------------------------------------------------


def test_what_is_raised_in_a_process_is_raised_and_a_dead_process_is_noticed(monkeypatch):
    in_forks(monkeypatch)
    with pytest.raises(TypeError, match="not subscriptable"):
        list(spread(glob.iglob, [3], 2))
    with pytest.raises(RunError, match="a process died at job 1 of 1: there may be too little memory"):
        list(spread(os._exit, [1], 2))
    assert multiprocessing.active_children() == []


def threads(_):
    yield torch.get_num_threads()


def test_this_process_works_on_one_thread_and_has_its_others_back(two_threads):
    assert list(spread(threads, [0], 1)) == [(0, 1)]
    assert torch.get_num_threads() == 2


def test_no_process_is_started_for_one_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_context", pytest.fail)
    for name in "ab":
        (tmp_path / name).touch()
    found = list(spread(glob.iglob, [f"{tmp_path}/*", f"{tmp_path}/b"], 1))
    assert sorted(found) == [(0, f"{tmp_path}/a"), (0, f"{tmp_path}/b"), (1, f"{tmp_path}/b")]


def test_it_says_how_far_it_is():
    heard = []
    token = listener.set(lambda doing, done: heard.append((doing, done)))
    try:
        short(RingGAN).run()
    finally:
        listener.reset(token)
    assert [doing for doing, _ in heard] == [*["minimax (seed 0)"] * 3, "...", *["R1 (seed 0)"] * 3, "..."]
    done = [part for _, part in heard]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 1
    say("to nobody", 0.5)


# ---- the command -----------------------------------------------------------------------------------------


SMALL = (
    *("gan.generator.width=12", "gan.generator.depth=1", "gan.discriminator.width=12", "gan.discriminator.depth=1"),
    *("gan.batch_size=16", "gan.total_kimg=0.08", "moments=2", "samples=40", "workers=1"),
)


def lab(*arguments, code=0):
    result = CliRunner().invoke(app, ["lab", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_the_command_trains_any_config(tmp_path):
    said = lab("ring", *SMALL, "gan.loss=Hinge", "gan.terms=[R1(gamma=1)]", "gan.head.san=true", "--out", tmp_path)
    assert "this GAN" in said
    assert "ring: minimax (seed 0)" in said
    read = json.loads((tmp_path / "ring.json").read_text())["numbers"]["runs"]
    assert [run["setting"] for run in read] == ["minimax", "this GAN"]
    assert "loss=Hinge()" in read[1]["config"]
    assert "san=True" in read[1]["config"]
    assert repr(R1(gamma=1)) in read[1]["config"]
    assert {file.name for file in tmp_path.iterdir()} == {
        *("ring.json", "ring.png", "ring_measures.png", "ring_training.webp"),
    }


def test_the_command_compares(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "SETTINGS", {name: SETTINGS[name] for name in ("minimax", "R1", "R3GAN")})
    said = lab("swiss_roll", *SMALL, "seeds=2", "--compare", "--out", tmp_path)
    assert "swiss_roll: R3GAN (seed 1)" in said
    assert {file.name for file in tmp_path.iterdir()} == {
        *("swiss_roll_compare.json", "swiss_roll_compare.png", "swiss_roll_compare_seeds.png"),
    }
    assert "compare=True" in json.loads((tmp_path / "swiss_roll_compare.json").read_text())["experiment"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["saturation", "--compare"], "saturation compares no settings: --compare is for grid, ring, swiss_roll"),
        (["all", "--compare"], "all compares no settings"),
        (["ring", "gan.data=Digits"], "expected points, such as data=Points(of=Ring), got data=Digits("),
        (["ring", "gan.data.of=Mixture1D"], "is of dimension 1, and the pictures are of the plane"),
        (["grid", "gan.augment=ADA(heuristic=fixed)"], "is for images; points take augment=InstanceNoise"),
        (["ring", "beside=R2"], "there is no setting 'R2'; known: LSGAN, R1, R3GAN"),
        (["ring", "beside=WGANGP"], "there is no setting 'WGANGP'; did you mean 'WGAN-GP'?"),
        (["ring", "beside=R1(gamma=3)"], "RingGAN.beside takes a text, or none, got R1(gamma=3"),
        (["ring", "gan.lose=Hinge"], "TrainConfig has no field 'lose'; did you mean 'loss'?"),
        (["ring", "seeds=0"], "RingGAN.seeds"),
        (["ring", "workers=0"], "RingGAN.workers"),
        (["ring", "moments=0"], "RingGAN.moments"),
        (["ring", "--compare", "gan.loss=Hinge"], "gan.loss: NonSaturating(smoothing=0.0) -> Hinge(): a comparison"),
        (["ring", "--compare", "gan.terms=[Consensus]"], "-> (Consensus(gamma=10.0, every=1),): a comparison puts"),
        (["ring", "gan.generator=DCGANGenerator", "workers=1"], "resolution"),
    ],
)
def test_bad_input_is_one_clear_message(arguments, message, tmp_path):
    said = lab(*arguments, "--out", tmp_path / "out", code=2)
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_settings_are_refused_in_python_too():
    with pytest.raises(ValueError, match="expected points"):
        RingGAN(gan=replace(RingGAN().gan, data=Digits()))
    with pytest.raises(ValueError, match="is of dimension 1"):
        GridGAN(gan=replace(RingGAN().gan, data=Points(of=Mixture1D())))
    with pytest.raises(ValueError, match="is for images"):
        SwissRollGAN(gan=replace(RingGAN().gan, augment=ADA(heuristic="fixed", initial=0.1)))


def test_defaults():
    for kind, of in ((RingGAN, Ring()), (GridGAN, Grid()), (SwissRollGAN, SwissRoll())):
        assert kind().gan.data == Points(of=of)
        assert shared.name_of(kind().gan) == "R1"
        assert kind().beside == "minimax"
