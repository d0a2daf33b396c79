"""Transfer in the trainer: what a run takes from another one, what it leaves, and what rests."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from reference import SPEC, small
from runs import assert_same_run, lines, newest, same, saved
from tiny import recipe
from torch.testing import assert_close

import equipoise.train
from equipoise.config import TrainConfig, override
from equipoise.losses import R1, Consensus, HistoricalAverage, Orthogonal, SpectralNormPenalty
from equipoise.models import Head
from equipoise.rules import EMAConfig, FreezeD
from equipoise.train import GAN, g_step, train
from equipoise.weights import NoNormalizer


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run of tiny.py."""
    path = tmp_path_factory.mktemp("source")
    train(recipe(), path)
    return path


def copied(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def transferred(source, **changes) -> TrainConfig:
    return override(recipe(), {"start": FreezeD(run=str(source), layers=2), "seed": 3} | changes)


def test_a_run_starts_from_anothers_networks_and_does_not_train_the_first_layers(source, tmp_path, monkeypatch):
    """Here two convolutions and their biases, the first four parameters that D registers."""
    seen = {}

    class Watched(equipoise.train.start.Checkpoints):
        def load_latest(self):
            nimg = super().load_latest()
            seen.update({name: copied(self.nets[name]) for name in ("G", "D", "ema")})
            return nimg

    monkeypatch.setattr(equipoise.train.start, "Checkpoints", Watched)
    train(transferred(source), tmp_path)
    for name in ("G", "D", "ema"):
        assert same(seen[name], saved(source, name))
        assert not same(seen[name], saved(tmp_path, name))
    names = [name for name, _ in GAN.build(recipe(), SPEC).D.named_parameters()]
    after = saved(tmp_path, "D")
    assert {name for name in names if not torch.equal(after[name], seen["D"][name])} == set(names[4:])


def test_nothing_else_of_the_other_run_is_taken(source, tmp_path):
    """Its optimisers' moments would count its steps on."""
    train(transferred(source, total_kimg=0.04), tmp_path)
    state = torch.load(newest(tmp_path) / "state.pt", weights_only=True)
    assert state["nimg"] == 40
    for optimizer in state["optimizers"].values():
        assert {int(moments["step"]) for moments in optimizer["state"].values()} == {5}
    assert lines(tmp_path)[0]["nimg"] == 32


def test_the_past_of_a_historical_average_begins_where_the_transferred_networks_are(source, tmp_path):
    """And not at the initial weights that they replaced: the first step has no past to be drawn to."""
    average = (HistoricalAverage(),)
    changes = {"terms": (*average, HistoricalAverage(player="G")), "total_kimg": 0.008, "report.log_kimg": 0.008}
    train(transferred(source, **changes), tmp_path)
    first = lines(tmp_path)[0]
    assert first["nimg"] == 8
    assert first["D/HistoricalAverage"] == first["G/HistoricalAverage"] == 0


def test_a_transferred_run_resumes_bit_for_bit_when_the_other_run_is_gone(source, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(source, other)
    cfg = transferred(other, total_kimg=0.08)
    train(cfg, tmp_path / "whole")
    train(override(cfg, {"total_kimg": 0.04}), tmp_path / "cut")
    shutil.rmtree(other)
    train(cfg, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_does_not_fit_is_refused_and_leaves_its_directory_free(source, tmp_path):
    """Free for the config that is meant: no config of the refused one stays behind."""
    place = tmp_path / "run"
    for refused, message in (
        (transferred(source, **{"generator.width": 3}), r"G of .* does not fit this config's"),
        (transferred(source, d_normalizer=NoNormalizer()), r"D of .* does not fit this config's"),
        (transferred(tmp_path / "nowhere"), r"cannot start from the run .*nowhere: there is no checkpoint in"),
        (transferred(source, **{"start.layers": 99}), r"freezes more layers than the Discriminator has to spare"),
    ):
        with pytest.raises(ValueError, match=message):
            train(refused, place)
        assert not place.exists()
    train(transferred(source, total_kimg=0.008), place)
    assert saved(place, "D")


def killed(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_run_killed_before_it_saved_what_it_took_starts_from_the_other_again(source, tmp_path, monkeypatch):
    """What it leaves is a config and perhaps half a checkpoint."""
    cfg = transferred(source, total_kimg=0.048)
    train(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(equipoise.train.start.Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tmp_path / "killed")
    (tmp_path / "killed" / "checkpoints" / ".000000000000.tmp").mkdir(parents=True)
    train(cfg, tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_run_killed_before_its_first_snapshot_starts_from_the_same_weights(source, tmp_path, monkeypatch):
    """Whatever has become of the other run by then: it saved what it took, with the past of its regularisers."""
    other = tmp_path / "other"
    shutil.copytree(source, other)
    cfg = transferred(other, terms=(HistoricalAverage(strength=0.3),), total_kimg=0.048)
    train(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        steps = iter([g_step, g_step, killed])
        patch.setattr(equipoise.train.loop, "g_step", lambda *args: next(steps)(*args))
        with pytest.raises(KeyboardInterrupt):
            train(cfg, tmp_path / "killed")
    assert newest(tmp_path / "killed").name == "000000000000"
    assert_same_run(tmp_path / "killed", source)
    shutil.copytree(tmp_path / "killed", tmp_path / "killed again")
    train(replace(recipe(), total_kimg=0.176), other)
    assert not same(saved(other, "G"), saved(source, "G"))
    train(cfg, tmp_path / "killed")
    assert_same_run(tmp_path / "whole", tmp_path / "killed", ("G", "D", "ema", "D_terms"))
    shutil.rmtree(other)
    train(cfg, tmp_path / "killed again")
    assert_same_run(tmp_path / "whole", tmp_path / "killed again", ("G", "D", "ema", "D_terms"))


def test_the_transferred_average_lasts(source, tmp_path, monkeypatch):
    """β = 0.5^(images / half-life) from the first update on; a ramp-up would make it a copy of G within a few."""
    passed = []

    def noting(gan, *args):
        found = g_step(gan, *args)
        passed.append({name: p.detach().double().clone() for name, p in gan.G.named_parameters()})
        return found

    monkeypatch.setattr(equipoise.train.loop, "g_step", noting)
    train(transferred(source, ema=EMAConfig(halflife_kimg=1.0), total_kimg=0.16), tmp_path)
    before, G, average = (saved(*where) for where in ((source, "ema"), (tmp_path, "G"), (tmp_path, "ema")))
    assert len(passed) == 20
    beta = 0.5 ** (8 / 1000)
    for name in passed[0]:
        expected = before[name].double()
        for now in passed:
            expected = beta * expected + (1 - beta) * now[name]
        assert_close(average[name].double(), expected, rtol=1e-4, atol=1e-6)

    def distance(a, b):
        return sum((a[name] - b[name]).square().sum() for name in passed[0]).sqrt().item()

    assert distance(average, before) < 0.3 * distance(G, before)  # 20 updates are a tenth of the average
    assert distance(average, G) > 0.7 * distance(G, before)


def test_every_other_term_leaves_frozen_layers_alone(tmp_path):
    """Penalties, regularisers and joint penalties, which see the whole of D."""
    terms = (R1(every=1), SpectralNormPenalty(strength=1.0), HistoricalAverage(), Consensus(gamma=0.1))
    train(small(), tmp_path / "a")
    before = saved(tmp_path / "a", "D")
    for layers, resting in ((0, set()), (2, {"body.1.weight", "body.1.bias", "body.3.weight", "body.3.bias"})):
        run = tmp_path / str(layers)
        train(small(terms=terms, start=FreezeD(run=tmp_path / "a", layers=layers), seed=1), run)
        assert {name for name, value in saved(run, "D").items() if torch.equal(before[name], value)} == resting


def test_a_regularizer_of_frozen_layers_alone_is_reported_and_moves_nothing(tmp_path):
    """Of a SAN, whose head regularisers leave alone."""
    cfg = small(head=Head(san=True))
    train(cfg, tmp_path / "a")
    later = override(cfg, {"start": FreezeD(run=tmp_path / "a", layers=2), "seed": 1})
    train(later, tmp_path / "plain")
    train(override(later, {"terms": (Orthogonal(strength=1.0),)}), tmp_path / "b")
    assert same(saved(tmp_path / "plain", "D"), saved(tmp_path / "b", "D"))
    values = [line["D/Orthogonal"] for line in lines(tmp_path / "b")]
    assert min(values) == max(values) > 0
