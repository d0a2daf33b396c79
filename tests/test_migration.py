"""Configs that earlier versions have saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import loop_over

from equipoise.compute.settings import Compute
from equipoise.config import components, to_text
from equipoise.losses import FeatureMatching, HistoricalAverage, Orthogonal
from equipoise.models import Projection, SemiSupervised
from equipoise.recipes import available, load
from equipoise.rules import FreezeD, Generation, Report
from equipoise.runs import parse_config
from equipoise.runs.migration import of_today

SAVED = Path(__file__).parent / "data" / "configs"


def saved(recipe):
    return (SAVED / f"before_terms_{recipe}.txt").read_text()


def test_terms_of_five_fields_are_one_list():
    config = parse_config(saved("improved_gan"), components())
    assert config.terms == (HistoricalAverage(), FeatureMatching(adversarial=False))
    assert config.head.conditioning == SemiSupervised(labelled=100)
    config = parse_config(saved("biggan_small"), components())
    assert config.terms == (HistoricalAverage(), Orthogonal(player="G"))
    assert config.head.conditioning == Projection()
    assert config.report == Report(log_kimg=0.1, snapshot_kimg=0.2)
    assert (config.game, config.start, config.compute) == (Generation(), None, Compute())
    assert parse_config(to_text(config), components()) == config


def test_all_other_fields_have_a_place():
    text = saved("biggan_small")
    for old, new in (
        ("reuse_fakes=False", "reuse_fakes=True"),
        ("transfer=None", "transfer=FreezeD(run='runs/a', layers=1)"),
        ("precision='float32'", "precision='bf16'"),
        ("convolutions='torch'", "convolutions='measured'"),
        ("feature_matching=None", "feature_matching=FeatureMatching(strength=2.0, adversarial=True)"),
        ("evaluation=None", "evaluation=Evaluate(every_kimg=5.0, features='digits')"),
    ):
        assert old in text
        text = text.replace(old, new)
    config = parse_config(text, components())
    assert config.game == Generation(reuse=True)
    assert config.start == FreezeD("runs/a", layers=1)
    assert config.compute == Compute(precision="bf16", convolutions="measured")
    assert config.terms[-1] == FeatureMatching(strength=2.0)
    assert config.report.evaluation.every_kimg == 5.0


@loop_over("recipe", sorted(available()))
def test_a_config_of_today_stays_as_it_is(recipe):
    text = to_text(load(recipe)[0])
    assert of_today(text) == text


@loop_over("text", ["", "TrainConfig(", "5", "TrainConfig()", "Hinge()", "(" * 500, "\0"])
def test_what_is_no_config_stays_as_it_is(text):
    assert of_today(text) == text


def test_what_a_saved_config_has_wrong_is_said_of_todays_fields():
    with pytest.raises(ValueError, match="TrainConfig has no field 'sead'"):
        parse_config(saved("biggan_small").replace("seed=0", "sead=0"), components())
