"""The doctor: each symptom is named on evidence that has it, and not on its healthy twin."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from commands import run as command_line
from loops import loop_over
from runs import assert_same_run, lines, newest
from tiny import recipe
from torch import nn

from equipoise.augment import ADA
from equipoise.config import components, override, parse
from equipoise.core.schedules import Linear
from equipoise.core.types import Batch, ImageSpec, RunError
from equipoise.data import Digits
from equipoise.doctor import (
    PREFIX,
    SYMPTOMS,
    Evidence,
    Watch,
    command,
    course,
    examine,
    of_config,
    of_images,
    table,
    turns,
)
from equipoise.doctor.changes import with_term
from equipoise.doctor.look import View, look
from equipoise.doctor.measures import misfit_of_norms, slopes, steps_of, units, update_ratio, verdicts
from equipoise.doctor.nearness import class_effect, spread
from equipoise.doctor.undisturbed import undisturbed
from equipoise.evaluate import deep_facts
from equipoise.generate import Generator
from equipoise.losses import R1, Hinge, LazyStep, NonSaturating, Saturating, Wasserstein
from equipoise.models import Head
from equipoise.recipes import load
from equipoise.rules import Adam, EMAConfig, Evaluate, Report, RMSprop
from equipoise.rules.report import SymptomName
from equipoise.runs import Run, read_run
from equipoise.train import train
from equipoise.view import report
from equipoise.weights import ClipWeights, NoNormalizer

NAMES = [symptom.name for symptom in SYMPTOMS]
LONG = 64
"""Values of a curve, a kimg each."""


def config(**changes):
    return override(replace(recipe(), total_kimg=float(LONG), batch_size=8), changes)


def evidence(cfg=None, facts=None, **curves):
    """Evidence with a value a kimg. In a name "__" stands for the stroke."""
    named = {name.replace("__", "/"): values for name, values in curves.items()}
    return Evidence(
        {name: [(i + 1.0, float(v)) for i, v in enumerate(values)] for name, values in named.items()},
        config() if cfg is None else cfg,
        facts or {},
    )


def names(found):
    return [finding.symptom.name for finding in found]


flat = [0.6] * LONG
waves = [math.sin(2 * math.pi * i / 10) for i in range(LONG)]
noise = np.random.default_rng(0).normal(size=LONG).tolist()
grows = [math.exp(i / 6) for i in range(LONG)]
measured = {"report.evaluation": Evaluate(features="digits")}

CASES = {
    "data": (evidence(doctor__data_constant=[0.9]), evidence(doctor__data_constant=[0.0], doctor__data_copies=[0.01])),
    "diverged": (
        evidence(D__real=[1.0] * 32 + [10.0**i for i in range(32)]),
        evidence(D__real=[30.0 + v for v in noise], D__loss=noise),
    ),
    "steps_large": (evidence(doctor__first_step_D=[3.0]), evidence(doctor__first_step_D=[0.05])),
    "vanishes": (evidence(doctor__grad_G=[1e-9] * 3), evidence(doctor__grad_G=[1e-3] * 3)),
    "saturated": (evidence(doctor__flat=[0.9] * 3), evidence(doctor__flat=[0.9, 0.1, 0.0])),
    "steps_small": (evidence(doctor__step_D=[0.0] * 3), evidence(doctor__step_D=[1e-3] * 3)),
    "collapsed": (evidence(doctor__diversity=[0.9, 0.2, 0.2, 0.1]), evidence(doctor__diversity=[0.1, 0.4, 0.8, 0.9])),
    "dead_units": (evidence(doctor__dead_G=[0.95] * 3), evidence(doctor__dead_G=[0.3] * 3)),
    "overfits": (
        evidence(D__real=[2.0] * 20, D__fake=[-2.0] * 20, D__held_out=[-1.8] * 20),
        evidence(D__real=[2.0] * 20, D__fake=[-2.0] * 20, D__held_out=[1.5] * 20),
    ),
    "d_strong": (evidence(D__sign_real=[0.5] * 20 + [1.0] * 20), evidence(D__sign_real=[1.0] * 10 + flat)),
    "d_weak": (
        evidence(doctor__right=[0.5] * 3, doctor__coverage=[0.0] * 3, doctor__diversity=[0.5] * 3),
        evidence(doctor__right=[0.5] * 3, doctor__coverage=[0.9] * 3),
    ),
    "logits_grow": (evidence(D__real=[1.0] * 20 + [10.0 * i for i in range(20)]), evidence(D__real=flat)),
    "bound_grows": (
        evidence(D__lipschitz=grows, D__real=[v / 4 for v in range(LONG)], D__fake=[-v / 4 for v in range(LONG)]),
        evidence(D__lipschitz=grows, D__real=flat, D__fake=[-v for v in flat]),
    ),
    "oscillates": (evidence(D__real=waves), evidence(D__real=noise)),
    "class_ignored": (evidence(doctor__class_effect=[0.02] * 3), evidence(doctor__class_effect=[0.6] * 3)),
    "memorised": (
        evidence(facts={"deep/to_training": 0.2, "deep/held_out_to_training": 2.0}),
        evidence(facts={"deep/to_training": 1.9, "deep/held_out_to_training": 2.0}),
    ),
    "norms_misfit": (evidence(doctor__norms=[3.0] * 2), evidence(doctor__norms=[0.1] * 2)),
    "ema_long": (
        evidence(config(ema=EMAConfig(halflife_kimg=500.0, rampup=None)), D__real=flat),
        evidence(config(ema=EMAConfig(halflife_kimg=500.0)), D__real=flat),
    ),
    "augment_leaks": (
        evidence(config(augment=ADA(heuristic="fixed", initial=1.0))),
        evidence(config(augment=ADA(heuristic="fixed", initial=1.0, groups=("color",)))),
    ),
    "augment_limit": (
        evidence(config(augment=ADA()), augment__p=[0.85] * 20),
        evidence(config(augment=ADA()), augment__p=[0.4] * 20),
    ),
    "schedule_ended": (
        evidence(config(g_optim=Adam(lr=Linear(1e-3, 0.0, 10.0)), total_kimg=200.0), D__real=flat),
        evidence(config(g_optim=Adam(lr=Linear(1e-3, 0.0, 64.0))), D__real=flat),
    ),
    "got_worse": (
        evidence(config(**measured), eval__frechet=[90.0, 50.0, 60.0, 70.0, 80.0]),
        evidence(config(**measured), eval__frechet=[90.0, 80.0, 60.0, 50.0, 51.0]),
    ),
    "few_seen": (evidence(D__real=flat, doctor__epochs=[0.3]), evidence(D__real=flat, doctor__epochs=[4.0])),
}  # fmt: skip


# ---- each symptom ----------------------------------------------------------------------------------------


def test_every_symptom_has_a_name_of_its_own_and_a_case():
    assert sorted(NAMES) == sorted(set(NAMES)) == sorted(get_args(SymptomName)) == sorted(CASES)


@loop_over("name", NAMES)
def test_a_symptom_is_named_where_it_is_and_not_on_its_healthy_twin(name):
    ill, healthy = CASES[name]
    assert name in names(examine(ill))
    assert examine(healthy) == []


@loop_over("name", NAMES)
def test_a_finding_says_what_shows_it_and_its_changes_are_configs(name):
    """Every proposed change is one that the run's config takes, and that changes it."""
    ill, _ = CASES[name]
    finding = next(f for f in examine(ill) if f.symptom.name == name)
    assert any(character.isdigit() for character in finding.evidence)
    assert finding.causes
    assert finding.symptom.source
    assert finding.symptom.reads
    for change in finding.changes:
        assert override(ill.config, {change.key: parse(change.value, components())}) != ill.config
        assert change.why
    if name not in ("data", "norms_misfit", "few_seen"):
        assert finding.changes


@loop_over("name", NAMES)
def test_nothing_is_found_without_statistics(name):
    symptom = next(s for s in SYMPTOMS if s.name == name)
    assert symptom.seen(Evidence({})) is None
    assert symptom.seen(Evidence({}, config())) is None


def test_causes_come_before_consequences_and_mild_ones_last():
    found = examine(evidence(doctor__diversity=[0.1] * 9, doctor__first_step_D=[5.0], doctor__flat=[0.9] * 3))
    assert names(found) == ["steps_large", "saturated", "collapsed"]
    assert found[-1].causes[0] == "learning rates are too high"
    found = examine(evidence(doctor__diversity=[0.1] * 9, doctor__step_D=[0.0] * 9, doctor__epochs=[0.3] * LONG))
    assert names(found) == ["steps_small", "collapsed", "few_seen"]
    assert found[1].causes[0] == "D does not learn"


def test_a_slow_start_is_no_collapse_and_a_fall_is_one():
    """At 8 images an update and a value a kimg, 3 values are 375 updates, and 9 are 1125."""
    assert examine(evidence(doctor__diversity=[0.05] * 5)) == []
    assert names(examine(evidence(doctor__diversity=[0.05] * 9))) == ["collapsed"]
    assert examine(evidence(doctor__diversity=[0.05] * 9 + [0.1, 0.2])) == []
    assert names(examine(evidence(doctor__diversity=[0.8, 0.8, 0.1, 0.1, 0.1]))) == ["collapsed"]
    assert examine(evidence(doctor__diversity=[0.8] * 5, doctor__duplicates=[0.9] * 5)) == []


def test_a_term_in_a_step_of_its_own_is_replaced_in_it():
    cfg = load("stylegan2_small")[0]
    change = with_term(cfg, "R1(gamma=1)", "")
    new = override(cfg, {change.key: parse(change.value, components())})
    r1, lengths = new.terms[-1], new.terms[0]
    assert (r1, lengths) == (LazyStep(R1(gamma=1.0, every=16)), cfg.terms[1])
    assert len(new.terms) == len(cfg.terms)


def test_a_change_starts_from_the_settings_of_the_run():
    found = examine(evidence(config(terms=(R1(gamma=0.5),)), doctor__first_step_D=[2.0], doctor__first_step_G=[0.01]))
    assert [c.override for c in found[0].changes] == ["d_optim.lr=1e-05"]  # 2 is 100 times 0.02
    found = examine(evidence(config(terms=(R1(gamma=0.5),)), D__sign_real=[1.0] * 20))
    assert "terms=[R1(gamma=10)]" in [c.override for c in found[0].changes]
    clipped = config(
        constraints=(ClipWeights(bound=1e-4),), loss=Wasserstein(), head=Head(), d_normalizer=NoNormalizer()
    )
    found = next(f for f in examine(evidence(clipped, doctor__grad_G=[0.0] * 3)) if f.symptom.name == "vanishes")
    assert found.causes[0] == "D's weights are clipped too tightly"
    both = examine(evidence(clipped, doctor__grad_G=[0.0] * 3, doctor__step_G=[0.0] * 3, doctor__first_step_D=[9.0]))
    assert names(both) == ["vanishes", "steps_small"]
    assert both[1].causes[0] == "no gradient reaches it"
    assert both[1].changes == ()
    assert found.changes[0].override == "constraints=[ClipWeights(bound=0.01)]"


def test_data_that_are_grey_copied_or_lack_classes_are_named():
    class Images:
        spec, slow, class_names = ImageSpec(8, 1, 3), False, None

        def __init__(self, pixels, labels=None):
            self.pixels, self.labels = pixels, labels

        def __len__(self):
            return len(self.pixels)

        def read(self, indices):
            return self.pixels[indices]

    random = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(40) % 3
    assert of_config(config(), of_images(Images(random, labels))) == []
    for pixels, y, words in (
        (np.full_like(random, 128), labels, "100% of the images are of one colour"),
        (random // 8, labels, "all values lie within 12% of the range"),
        (random[np.arange(40) % 8], labels, "80% of the images looked at are copies"),
        (random, np.zeros(40, np.int64), "2 classes have no image"),
    ):
        (finding,) = of_config(config(), of_images(Images(pixels, y)))
        assert words in finding.evidence


# ---- measurements ----------------------------------------------------------------------------------------


def test_the_spread_of_equal_distributions_is_that_of_the_data_and_collapse_shows():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(128, 3, 4, 4, generator=g), torch.randn(128, 3, 4, 4, generator=g)
    same = spread(a, b)
    assert float(same["diversity"]) == pytest.approx(1, abs=0.05)
    assert float(same["coverage"]) > 0.9
    assert float(same["precision"]) > 0.7
    assert float(same["duplicates"]) == float(same["data_duplicates"]) == 0
    one = spread(b[:1] + 0.01 * a, b)
    assert float(one["diversity"]) < 0.05
    assert float(one["duplicates"]) == 1
    left, right = torch.randn(64, 2, generator=g) - 9, torch.randn(64, 2, generator=g) + 9
    half = spread(torch.randn(128, 2, generator=g) + 9, torch.cat([left, right]))
    assert float(half["coverage"]) == pytest.approx(0.5, abs=0.05)
    assert float(half["precision"]) > 0.7


def test_the_gradient_at_images_is_that_of_autograd_one_image_at_a_time():
    D = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    x = torch.randn(6, 1, 2, 2).requires_grad_()
    logits = D(x)
    found = slopes(Saturating().g(logits).mean(), logits, x)
    alone = [torch.autograd.grad(Saturating().g(D(x[i : i + 1])).mean(), x)[0][i].norm() for i in range(6)]
    assert float(found.size) == pytest.approx(float(torch.stack(alone).median()), rel=1e-5)
    assert float(found.flat) == 0
    sure = D(x) - 50
    assert float(slopes(Saturating().g(sure).mean(), sure, x).flat) == 1
    sure = D(x) - 50
    assert float(slopes(NonSaturating().g(sure).mean(), sure, x).flat) == 0


def test_verdicts_are_the_probability_of_preferring_a_real_image():
    assert float(verdicts(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [2.0]]))["right"]) == 0.75
    assert float(verdicts(torch.zeros(3, 1), torch.zeros(3, 1))["right"]) == 0.5


@loop_over("beta", [0.0, 0.9])
def test_the_size_of_a_step_is_the_step_that_adam_made(beta):
    net = nn.Linear(5, 7)
    for fused in (True, False):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(beta, 0.99), fused=fused)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(4, 5)).square().mean().backward()
            before = net.weight.detach().clone()
            optimizer.step()
        steps = {id(p): size for p, size in steps_of(optimizer)}
        assert float(steps[id(net.weight)]) == pytest.approx(float((net.weight.detach() - before).norm()), rel=1e-3)
        ratio = update_ratio(steps_of(optimizer))
        after = net.weight.detach()
        assert float(ratio) == pytest.approx(float((after - before).norm() / after.norm()), rel=1e-3)


def test_the_size_of_rmsprops_steps_is_right_on_average():
    w = nn.Parameter(torch.randn(2000, 2))
    optimizer = RMSprop(lr=0.01).build(nn.ParameterList([w]))
    for _ in range(600):
        w.grad = torch.randn_like(w)
        before = w.detach().clone()
        optimizer.step()
    ((_, size),) = steps_of(optimizer)
    assert float(size) == pytest.approx(float((w.detach() - before).norm()), rel=0.1)
    assert update_ratio([]) is None


def test_dead_units_are_those_with_one_output_for_all_images():
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    with torch.no_grad():
        net[0].bias.copy_(torch.tensor([9.0, 9.0, 9.0, -99.0]))
    with units(net) as seen:
        net(torch.randn(8, 2))
        net(torch.randn(8, 2))
    assert float(seen.dead()) == 0.25
    with units(nn.Linear(1, 1)) as seen:
        pass
    assert seen.dead() is None


def test_norm_statistics_fit_the_batches_that_made_them_alone():
    net = nn.Sequential(nn.BatchNorm2d(3))
    x = 5 + 2 * torch.randn(64, 3, 4, 4)
    with misfit_of_norms(net.eval()) as misfits:
        net(x)
    assert float(misfits["0"]) > 1
    net[0].running_mean.copy_(x.mean((0, 2, 3)))
    net[0].running_var.copy_(x.var((0, 2, 3)))
    with misfit_of_norms(net) as misfits:
        net(x)
    assert float(misfits["0"]) < 0.01


def test_the_effect_of_a_class_is_its_share_of_the_change():
    z, y = torch.randn(16, 4), torch.zeros(16, 4)
    assert float(class_effect(z + y, z + y + 0.0, z.roll(1, 0))) == 0
    assert float(class_effect(z, z.roll(1, 0), z.roll(1, 0))) == pytest.approx(1)


def test_looking_leaves_no_trace():
    G = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout()).train()
    before = [b.clone() for b in G.buffers()]
    state = torch.random.get_rng_state()
    with undisturbed(G):
        G.eval()
        G.train()
        G(torch.randn(8, 3))
        G[0].eval()
    assert all(torch.equal(a, b) for a, b in zip(before, G.buffers(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())
    assert G[0].training


def test_a_paired_loss_and_several_logits_are_looked_at():
    D = nn.Sequential(nn.Conv2d(1, 2, 2), nn.LeakyReLU(0.2), nn.Conv2d(2, 1, 2))
    x = torch.randn(6, 1, 4, 4)
    for loss in (*load("r3gan")[:0], Hinge(), None):
        stats = look(View(D, lambda x, y: D(x), loss, Batch(x), Batch(x + 1)))
        assert ("doctor/grad_G" in stats) == (loss is not None)
        assert all(value.isfinite() for value in stats.values())


# ---- a run -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run, watched and not."""
    folder = tmp_path_factory.mktemp("runs")
    train(recipe(), folder / "watched")
    train(override(recipe(), {"report.watch": False}), folder / "alone")
    return folder


def test_a_watched_run_trains_as_it_would_alone(runs):
    assert_same_run(runs / "watched", runs / "alone")
    alone = {line["nimg"]: line for line in lines(runs / "alone")}
    for line in lines(runs / "watched"):
        for name, value in alone[line["nimg"]].items():
            assert name == "images_per_second" or line[name] == value
    assert not any(name.startswith("doctor/") for line in alone.values() for name in line)
    measured = [line for line in lines(runs / "watched") if "doctor/diversity" in line]
    assert [line["nimg"] for line in measured] == [40, 80, 120, 160]
    assert {"doctor/class_effect", "doctor/grad_G", "doctor/step_D", "doctor/dead_D"} <= measured[0].keys()
    assert sum("doctor/first_step_D" in line for line in lines(runs / "watched")) == 1


def ill(**changes):
    """A run with learning rates that are far too high, of enough updates to be judged."""
    return override(
        recipe(),
        {"g_optim.lr": 3.0, "d_optim.lr": 3.0, "d_normalizer": NoNormalizer(), "head.san": False, **changes},
    )


def test_a_symptom_begins_once_and_is_told_on_the_screen_and_in_the_statistics(tmp_path, capsys):
    train(ill(), tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: steps are too large")]
    assert len(said) == 1
    assert "from 0.04 kimg: an update of D moves its median layer by" in said[0]
    assert "Try d_optim.lr=0.03 or g_optim.lr=0.03" in said[0]
    noted = [line[PREFIX + "steps_large"] for line in lines(tmp_path) if PREFIX + "steps_large" in line]
    assert noted == [1]
    text = report(tmp_path)
    assert "steps are too large (serious)" in text
    assert "steps are too large: from 0.04 kimg" in text
    assert "<code>equipoise train" in text


def test_a_resumed_run_does_not_tell_again(tmp_path, capsys):
    train(ill(), tmp_path)
    capsys.readouterr()
    train(ill(total_kimg=0.24), tmp_path)
    assert "steps are too large" not in capsys.readouterr().err
    assert len([line for line in lines(tmp_path) if PREFIX + "steps_large" in line]) == 1


def test_a_symptom_ends_once_when_two_examinations_do_not_find_it():
    values = [0.0] * 3 + [0.9] * 3 + [0.0] * 4
    noted, told = {}, []
    for i in range(1, len(values) + 1):
        curves = {"doctor/flat": [(float(k + 1), v) for k, v in enumerate(values[:i])]}
        now = Evidence(curves | noted, config())
        for turn in turns(now, [float(i - 1)]):
            told.append((i, turn.symptom.name, turn.finding is not None))
            noted.setdefault(PREFIX + turn.symptom.name, []).append((float(i), float(turn.finding is not None)))
    assert told == [(5, "saturated", True), (8, "saturated", False)]
    (only,) = course(Evidence(noted))
    assert (only.symptom.name, only.begun, only.ended) == ("saturated", 5, 8)


def test_a_run_stops_on_a_symptom_with_its_files_written(tmp_path):
    evaluation = Evaluate(every_kimg=0.04, num=20, features="digits")
    cfg = ill(**{"report.stop_on": "diverged, steps_large", "report.evaluation": evaluation})
    with pytest.raises(RunError, match=r"stopped by report.stop_on after 0.04 kimg: steps are too large.*best"):
        train(cfg, tmp_path)
    assert newest(tmp_path).name == "000000000040"
    assert (tmp_path / "best" / "evaluation.json").exists()
    assert (tmp_path / "samples" / "000000000040.png").exists()
    train(replace(cfg, report=recipe().report), tmp_path)  # it resumes
    assert newest(tmp_path).name == "000000000160"


def test_a_run_that_is_well_is_not_stopped(tmp_path):
    train(override(recipe(), {"report.stop_on": ",".join(NAMES[1:])}), tmp_path)


def test_names_to_stop_on_are_checked():
    assert Report(stop_on="diverged,collapsed").stop_on == ("diverged", "collapsed")
    with pytest.raises(ValueError, match="got 'colapsed'"):
        Report(stop_on=("colapsed",))
    with pytest.raises(ValueError, match="needs watch=true"):
        Report(stop_on=("collapsed",), watch=False)


# ---- the command -----------------------------------------------------------------------------------------


@loop_over("name", NAMES)
def test_the_table_fits_80_columns_and_its_commands_are_whole(name):
    ill, _ = CASES[name]
    text = table(examine(ill), "runs/my first run", course(ill))
    assert all(len(line) <= 80 for line in text.splitlines() if not line.endswith("'") or " " not in line.strip())
    for finding in examine(ill):
        said = command(finding, "runs/my first run")
        if said:
            joined = text.replace("\\\n", " ")
            assert " ".join(said.split()) in " ".join(joined.split())


def test_a_command_resumes_where_nothing_else_is_computed_and_keeps_good_weights():
    (found,) = examine(CASES["few_seen"][0])
    assert command(found, "runs/a") == "equipoise train runs/a/config.txt runs/a total_kimg=1070"
    found = next(f for f in examine(CASES["ema_long"][0]))
    assert command(found, "runs/a").endswith("runs/a-2 ema.rampup=0.05 'start=Transfer(run='\"'\"'runs/a'\"'\"')'")
    found = next(f for f in examine(CASES["steps_large"][0]))
    assert command(found, "runs/a") == "equipoise train runs/a/config.txt runs/a-2 d_optim.lr=1e-05"


def test_the_command_names_what_a_run_has_and_the_deep_one_looks_closer(runs, tmp_path):
    assert "No symptom." not in command_line("doctor", runs / "watched")  # it has seen 2 % of the data
    text = command_line("doctor", runs / "watched")
    assert "watched: 0.16 of 0.16 kimg" in text
    assert "Only curves were read" not in text
    assert "Only curves were read" in command_line("doctor", runs / "alone")
    assert "few_seen: too few images seen (mild)" in text
    assert f"equipoise train {runs / 'watched'}/config.txt" in " ".join(text.replace("\\\n", " ").split())
    generator = Generator.from_pretrained(runs / "watched")
    facts = deep_facts(read_run(runs / "watched"), generator, num=100)
    assert {"deep/precision", "deep/recall", "deep/to_training", "deep/held_out_to_training"} <= facts.keys()
    assert facts["deep/norms"] < 1
    assert "few_seen" in command_line("doctor", runs / "watched", "--deep", "--num", "50")
    assert "expected one run, got 2 words" in command_line("doctor", "a", "b", code=2)
    assert "is not a run" in command_line("doctor", tmp_path, code=2)


def test_memorised_images_and_spoiled_statistics_are_found_by_the_deep_examination(runs):
    generator = Generator.from_pretrained(runs / "watched")
    run, data = read_run(runs / "watched"), Digits().build()

    class Copies(type(generator)):
        def sample(self, num, **_):
            return data.read(np.arange(num) * 7).transpose(0, 2, 3, 1)

    copies = Copies(generator.net, generator.config, generator.spec)
    with torch.no_grad():
        layers = [m for m in generator.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        kept = [m.running_mean.clone() for m in layers]
        for m in layers:
            m.running_mean += 9
    facts = deep_facts(run, copies, num=60)
    for m, mean in zip(layers, kept, strict=True):
        m.running_mean.copy_(mean)
    assert {"memorised", "norms_misfit"} <= set(names(examine(Evidence.of(run.stats, run.config, facts))))


def test_a_config_is_examined_before_it_runs():
    text = command_line("doctor", "--config", "wgan", "data=Digits", "constraints=[]")
    assert "nothing bounds D's Lipschitz constant" in text
    text = command_line("doctor", "--config", "quickstart", "ema.rampup=none", "ema.halflife_kimg=5000")
    assert "ema_long" in text
    assert "No guarantee is void, and no symptom." in command_line("doctor", "--config", "quickstart")


# ---- one's own loop --------------------------------------------------------------------------------------


def own_loop(lr, calls=400, said=None):
    """A loop of one's own on points, with the three lines."""
    torch.manual_seed(0)
    G = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    D = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    g, d = (torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.99)) for net in (G, D))
    watch = Watch(G, D, every=40, say=(said if said is not None else []).append)
    for _ in range(calls):
        x, z = torch.randn(64, 2), torch.randn(64, 2)
        d.zero_grad()
        NonSaturating().d(D(x), D(G(z).detach())).mean().backward()
        d.step()
        g.zero_grad()
        NonSaturating().g(D(G(z))).mean().backward()
        g.step()
        watch(x, z)
    return watch


def test_a_loop_of_ones_own_is_watched_with_the_same_symptoms():
    said = []
    healthy = own_loop(5e-3, said=said)
    assert said == []
    assert str(healthy) == "no symptom after 25,600 images"
    assert len(healthy.lines) == 10
    ill = own_loop(1.0, said=said)
    assert "steps_large" in names(ill.findings)
    assert sum("steps are too large from" in text for text in said) == 1
    frozen = own_loop(0.0)
    assert "steps_small" in names(frozen.findings)
    with pytest.raises(ValueError, match="every=0"):
        Watch(nn.Linear(1, 1), nn.Linear(1, 1), every=0)


def test_a_watch_changes_nothing():
    def weights(watched):
        torch.manual_seed(0)
        G, D = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), nn.Linear(2, 1)
        optimizer = torch.optim.SGD([*G.parameters(), *D.parameters()], lr=0.1)
        watch = Watch(G, D, every=2, average=nn.Sequential(*G), num_classes=0)
        for _ in range(9):
            x, z = torch.randn(8, 2), torch.randn(8, 2)
            optimizer.zero_grad()
            D(G(z)).mean().backward()
            optimizer.step()
            if watched:
                watch(x, z)
        assert not watched or "doctor/norms" in watch.lines[-1]
        return [*G.state_dict().values(), *D.state_dict().values()]

    assert all(map(torch.equal, weights(True), weights(False)))


def test_a_run_on_disk_is_evidence_as_a_run_in_memory(runs):
    run = read_run(runs / "watched")
    assert isinstance(run, Run)
    assert Evidence.of(run.stats, run.config).kimg == 0.16
    assert Path(run.folder) == runs / "watched"
