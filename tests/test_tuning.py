"""What a run measures is kept with it, and changes how it computes, not what."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from loops import loop_over
from runs import assert_same_run, newest
from tiny import recipe
from torch import Tensor, nn

from equipoise.compute import convolutions, taps
from equipoise.compute.settings import Compute
from equipoise.core.types import ImageSpec, RunError, component
from equipoise.data import Digits, InfiniteBatches
from equipoise.losses import R1
from equipoise.models import DiscriminatorConfig, HeadFactory
from equipoise.nn import Discriminator
from equipoise.train import GAN, d_step, train, tune, tuning
from equipoise.train.steps import iteration
from equipoise.train.tuning import Manner, choose, precisions_of
from equipoise.weights import NoNormalizer

MEASURED = replace(recipe(), total_kimg=0.08, compute=Compute(precision="auto", convolutions="measured"))


def built(cfg=MEASURED):
    return GAN.build(cfg, cfg.data.build().spec)


def test_measures_once_and_keeps_what_it_chose(tmp_path, monkeypatch, capsys):
    gan = built()
    before = nn.utils.parameters_to_vector([*gan.G.parameters(), *gan.D.parameters()]).clone()
    buffers = [b.clone() for net in (gan.G, gan.D) for b in net.buffers()]
    tune(gan, tmp_path, iteration)
    assert "measured an iteration: float32 contiguous" in capsys.readouterr().err
    assert torch.equal(before, nn.utils.parameters_to_vector([*gan.G.parameters(), *gan.D.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(buffers, [*gan.G.buffers(), *gan.D.buffers()], strict=True))
    assert not gan.g_optim.state
    kept = json.loads((tmp_path / "tuned.json").read_text())
    assert (gan.compute.precision, gan.compute.convolutions.layout) == (kept["precision"], kept["layout"])
    assert gan.compute.convolutions.chosen == kept["convolutions"] != {}

    monkeypatch.setattr(tuning, "time_each", None)  # may not be called
    again = built()
    tune(again, tmp_path, iteration)
    assert (again.compute.precision, again.compute.convolutions.chosen) == (
        gan.compute.precision,
        gan.compute.convolutions.chosen,
    )
    assert "measured" not in capsys.readouterr().err


def test_what_is_met_later_is_kept_too(tmp_path):
    gan = built(replace(recipe(), compute=Compute(convolutions="measured")))
    tune(gan, tmp_path, iteration)
    with gan.compute.convolutions:
        gan.G(torch.randn(3, 4), torch.arange(3))  # another batch
    assert any(" 3x" in call for call in json.loads((tmp_path / "tuned.json").read_text())["convolutions"])


def test_nothing_is_measured_unasked(tmp_path):
    gan = built(replace(recipe(), compute=Compute(precision="bf16")))
    tune(gan, tmp_path, iteration)
    assert not list(tmp_path.iterdir())
    assert (gan.compute.precision, gan.compute.convolutions) == ("bf16", None)


def test_a_run_that_goes_on_computes_as_before(tmp_path):
    """Cut in the middle and given the choices of the whole run, it ends like it, bit for bit."""
    train(MEASURED, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    choices = (tmp_path / "whole" / "tuned.json").read_bytes()
    (tmp_path / "cut" / "tuned.json").write_bytes(choices)
    train(replace(MEASURED, total_kimg=MEASURED.total_kimg / 2), tmp_path / "cut")
    assert newest(tmp_path / "cut").name < newest(tmp_path / "whole").name
    train(MEASURED, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert (tmp_path / "cut" / "tuned.json").read_bytes() == choices


@loop_over(
    "content",
    [
        *(b"{", b"[]", b"null", b'{"precision": "bf16"}', b'{"precision": 1, "layout": 1, "convolutions": 1}'),
        *(b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b" " * 2_000_000),
        b'{"precision": "float32", "layout": "contiguous", "convolutions": {"a": []}}',
    ],
)
def test_damaged_choices_are_named(content, tmp_path):
    (tmp_path / "tuned.json").write_bytes(content)
    with pytest.raises(RunError, match=r"tuned\.json cannot be read .* Delete it to measure again"):
        tune(built(), tmp_path, iteration)


def test_auto_compares_what_the_device_tells_apart():
    assert precisions_of(torch.device("cpu")) == ("float32", "bf16")
    assert precisions_of(torch.device("cuda", 0)) == ("float32", "tf32", "bf16")


def test_bfloat16_must_be_clearly_faster():
    def seconds(*values):
        ways = [Manner(p, layout) for p in ("float32", "bf16") for layout in ("contiguous", "channels_last")]
        return dict(zip(ways, values, strict=True))

    assert choose(seconds(2.0, 1.0, 0.95, 1.5)) == Manner("float32", "channels_last")
    assert choose(seconds(2.0, 1.0, 0.8, 1.5)) == Manner("bf16", "contiguous")
    assert choose({Manner("bf16", "contiguous"): 1.0}) == Manner("bf16", "contiguous")


class Viewing(nn.Module):
    """A body that asks for maps without gaps."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 4, 2, 1), nn.LeakyReLU(), nn.Conv2d(2, 4, 4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layers(x.contiguous())
        return h.view(len(h), -1)


@component
class ViewingDiscriminator(DiscriminatorConfig):
    def build(self, spec: ImageSpec, head: HeadFactory) -> nn.Module:
        return Discriminator(Viewing(), head(4 * (spec.resolution // 4) ** 2))


def test_a_network_that_views_its_maps_keeps_them_without_gaps(tmp_path):
    gan = built(replace(MEASURED, discriminator=ViewingDiscriminator(), d_normalizer=NoNormalizer()))
    tune(gan, tmp_path, iteration)
    assert gan.compute.convolutions.layout == "contiguous"


def test_a_compiled_run_is_timed_compiled(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda net, mode: compiled.append(net))
    gan = built(replace(recipe(), compute=Compute(precision="auto", compile=True)))
    assert compiled == [gan.G, gan.D]
    tune(gan, tmp_path, iteration)
    assert len(compiled) == 4
    assert compiled[2] is not gan.G


def test_penalties_are_spared_the_taps(monkeypatch):
    """Which would compute gradients of weights beside those of images that R1 asks for."""
    monkeypatch.setattr(convolutions, "fastest", lambda *_: "taps")
    calls, real = [], taps.weight_gradient
    monkeypatch.setattr(taps, "weight_gradient", lambda *given: calls.append(1) or real(*given))
    counts = []
    for penalties in ((), (R1(every=1),)):
        gan = built(replace(recipe(), compute=Compute(convolutions="measured"), terms=penalties))
        d_step(gan, next(InfiniteBatches(Digits().build(), 8, seed=0)), 0)
        counts.append(len(calls))
        calls.clear()
    assert counts[0] == counts[1] > 0
