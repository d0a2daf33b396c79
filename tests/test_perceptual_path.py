"""Perceptual path length: closed forms of linear generators, and the way it is told in an evaluation."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from commands import run
from scipy import stats
from styled import SPEC, Styled, asked, build
from tiny import recipe
from torch.testing import assert_close

from equipoise.core.latents import Uniform, slerp
from equipoise.core.types import ImageSpec
from equipoise.data import Digits
from equipoise.evaluate import evaluate
from equipoise.features import feature_net
from equipoise.metrics.perceptual_path import path_lengths, trimmed_mean
from equipoise.metrics.registry import parse_metrics
from equipoise.models import MLPGenerator
from equipoise.rules import Evaluate
from equipoise.train import train


def length(text, config, spec=SPEC, distance=None):
    metric = parse_metrics(text, "toy")[text.partition("(")[0]]
    return metric.find(0, asked(config, spec), distance).numbers


def matrix(G):
    """x = M w, M the sum of the layers' matrices."""
    return G.net.synthesis.C.double().sum(0)


@pytest.mark.parametrize("sampling", ["end", "full"])
def test_a_linear_generator_has_the_length_of_its_matrix(sampling):
    """w = A z + b, x = M w: the mean over pairs of |M A (z' - z)|² is 2 |M A|², wherever on the path.

    b is the class's, and the same at both ends.
    """
    config, spec = Styled(z_dim=6, noise=0.5), SPEC if sampling == "end" else ImageSpec(16, 1, 3)
    G = build(config, spec)
    expected = 2 * float((matrix(G) @ G.net.mapping.A.double()).square().sum())
    settings = f"(num=4000,batch=500,trim=0,distance=pixels,epsilon=0.01,sampling={sampling})"
    ((name, found),) = length("ppl_w" + settings, config, spec).items()
    assert name == "ppl2_w_pixels"
    assert found.value == pytest.approx(expected, rel=4 * found.spread / expected)
    assert found.spread < 0.03 * expected


def test_a_path_in_z_is_the_great_arc_and_a_straight_one_for_a_uniform_prior():
    """On an arc of angle Ω and norm r a step of ε is ε Ω r long; in float32, on M A z with M A = c I."""
    config = Styled(z_dim=16, w_dim=16, num_ws=1)
    G = asked(config, ImageSpec(4, 1))
    net = G.generator.net
    net.mapping.A.copy_(torch.eye(16))
    net.synthesis.C.copy_(3 * torch.eye(16)[None])
    metric = parse_metrics("ppl_z(num=600,trim=0,distance=pixels,epsilon=0.01)", "toy")["ppl_z"]
    z = G.latents(1200, 0)[0].double()
    a, b = z[:600], z[600:]
    step = slerp(a, b, 0.01) - a
    assert metric.find(0, G, None).numbers["ppl2_z_pixels"].value == pytest.approx(
        float(9e4 * step.square().sum(1).mean()), rel=1e-3
    )
    uniform = asked(Styled(z_dim=16, w_dim=16, num_ws=1, prior=Uniform()), ImageSpec(4, 1))
    uniform.generator.net.load_state_dict(net.state_dict())
    found = metric.find(0, uniform, None).numbers["ppl2_z_pixels"]
    assert found.value == pytest.approx(9 * 16 * 2 / 3, rel=0.05)  # E (u' - u)² = 2/3


def test_a_path_stays_in_one_class_and_its_images_share_the_noise():
    """Else its length would have the difference of two classes, or of two noise images, divided by ε²."""
    config = Styled(z_dim=6, noise=100.0)
    for text in ("ppl_w(num=40,trim=0,distance=pixels)", "ppl_z(num=40,trim=0,distance=pixels,sampling=full)"):
        ((_, found),) = length(text, config, ImageSpec(8, 1, 3)).items()
        assert found.value < 1e4


def test_any_generator_has_paths_in_z_and_only_styled_ones_in_w():
    found = length("ppl_z(num=20,distance=pixels)", MLPGenerator(z_dim=4, width=8, depth=1), ImageSpec(8, 1))
    assert 0 < found["ppl2_z_pixels"].value < math.inf
    metric = parse_metrics("ppl_w", "toy")["ppl_w"]
    with pytest.raises(ValueError, match=r"ppl_w follows paths between styles, and MLPGenerator\(.* ask for ppl_z"):
        metric.check(asked(MLPGenerator(z_dim=4)))
    metric.check(asked(Styled(z_dim=4)))


def test_lengths_are_squares_of_differences_over_epsilon_squared():
    z = torch.randn(5, 2, dtype=torch.float64)
    t = torch.rand(5, dtype=torch.float64)
    found = path_lengths(
        lambda z: z[:, :, None, None].square(), lambda s: z * s[:, None], lambda x: 3 * x.flatten(1), t, 1e-5
    )
    assert_close(found, 9 * (2 * z.square() * t[:, None]).square().sum(1), rtol=1e-3, atol=0)


def test_the_mean_leaves_the_tails_out():
    values = np.random.default_rng(0).permutation(np.arange(1000.0)) ** 2
    kept = np.sort(values)[9:991]  # 1% of 999 steps: between ranks 9 and 10, and between 989 and 990
    mean, error = trimmed_mean(values, 0.01)
    assert mean == pytest.approx(kept.mean())
    assert error == pytest.approx(stats.sem(kept))
    assert trimmed_mean(values, 0.0)[0] == pytest.approx(values.mean())
    assert math.isnan(trimmed_mean(np.ones(1), 0.01)[1])


def test_features_of_floats_are_those_of_bytes_where_floats_are_bytes():
    """And go on between bytes: 1e-4 of a path is far less than a byte."""
    net = feature_net("digits")
    x = Digits().build().read(np.arange(4))
    floats = torch.from_numpy(x).float() / 127.5 - 1
    exact = net(x.transpose(0, 2, 3, 1)).features
    np.testing.assert_allclose(net.of_floats(floats), exact, atol=1e-4 * np.abs(exact).max())
    for channels in (1, 3):
        pair = floats.expand(-1, channels, -1, -1)
        step = (net.of_floats(pair + 1e-4) - net.of_floats(pair)).abs().amax(1)
        assert ((step > 0) & (step < 0.05)).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "a"
    train(recipe(), run_dir)
    return run_dir


def test_the_command_reports_the_network_in_the_name(trained, tmp_path):
    names = "ppl_z(num=8),frechet"
    said = run(
        *("evaluate", trained, "--metrics", names, "--features", "digits"),  # against the run's own data
        *("--num", "70", "--out", tmp_path / "a.json"),
    )
    assert "ppl2_z_digits" in said
    report = json.loads((tmp_path / "a.json").read_text())
    told = report["metrics"]["ppl_z"]
    assert told["numbers"]["ppl2_z_digits"]["better"] == "lower"
    assert told["reads"] == "generator"
    assert told["settings"]["epsilon"] == 1e-4
    assert report["features"]["dimensions"] == 64
    assert report["against"]["source"] == repr(Digits())
    said = run("evaluate", tmp_path, "--metrics", "ppl_z", code=2)
    assert "is not a run, which says what it was trained on: give --against DATA" in said


def test_no_image_of_the_sets_is_drawn_for_a_path(trained, monkeypatch):
    monkeypatch.setattr("equipoise.evaluate.sources.images", None)
    found = evaluate(trained, "Digits", metrics="ppl_z(num=4)", features="digits", num=10)
    assert found.report["features"]["name"] == "digits"
    assert found.report["features"]["dimensions"] is None
    pixels = evaluate(trained, "Digits", metrics="ppl_z(num=4,distance=pixels)", num=10)  # inception is not needed
    assert pixels.report["features"] is None


def test_images_without_a_generator_and_generators_without_styles_are_refused_before_any_work(trained):
    with pytest.raises(ValueError, match=r"only a generator answers ppl_z, and Digits\(.*\) holds images: give the"):
        evaluate(Digits(), Digits(), metrics="ppl_z", features="digits", num=10)
    for name in ("ppl_w", "eq_t"):
        with pytest.raises(ValueError, match=rf"{name} .* SANDigitsGenerator\(.*has no"):
            evaluate(trained, Digits(), metrics=name, features="digits", num=10)


def evaluated(*metrics):
    cfg = recipe()
    settings = Evaluate(every_kimg=1, metrics=metrics, num=8, features="digits")
    return dataclasses.replace(cfg, report=dataclasses.replace(cfg.report, evaluation=settings))


def test_a_run_is_evaluated_by_its_paths_while_it_trains(tmp_path):
    cfg = evaluated("ppl_z(num=4)")
    assert cfg.report.evaluation.better == {"ppl2_z_digits": "lower"}
    train(cfg, tmp_path / "good")
    lines = [json.loads(line) for line in (tmp_path / "good" / "stats.jsonl").read_text().splitlines()]
    assert lines[-1]["eval/ppl2_z_digits"] > 0
    with pytest.raises(ValueError, match="ppl_w follows paths between styles"):
        train(evaluated("ppl_w"), tmp_path / "bad")
    assert not (tmp_path / "bad" / "stats.jsonl").exists()
    with pytest.raises(ValueError, match="best='ppl2_z_inception' is not a number that"):
        Evaluate(metrics=("ppl_z",), best="ppl2_z_inception", features="digits")
