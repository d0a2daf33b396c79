"""Gradient accumulation: in pieces an update computes what it computes at once, and holds less."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from loops import loop_over
from reference import SPEC, Reference, Watch, assert_gradients, batch, build, small
from torch import nn
from torch.testing import assert_close

from equipoise.compute.pieces import count_pieces, repeated
from equipoise.compute.settings import Compute
from equipoise.config import TrainConfig, override
from equipoise.core.types import Batch
from equipoise.losses import (
    R1,
    Consensus,
    Dragan,
    Drift,
    FeatureMatching,
    GradientPenalty,
    Hinge,
    HistoricalAverage,
    NonSaturating,
    Orthogonal,
    RelativisticPairing,
    SoftLeastSquares,
    Wasserstein,
)
from equipoise.models import (
    Auxiliary,
    DCGANGenerator,
    Head,
    Projection,
    SANDigitsDiscriminator,
    SANDigitsGenerator,
    SemiSupervised,
)
from equipoise.rules import EMAConfig
from equipoise.train import GAN, d_step, g_step, train
from equipoise.weights import SpectralNorm


@pytest.fixture
def _double():
    """Networks, images and z in float64, where a sum in another order differs by 1e-16."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CASES = {
    "penalised": small(terms=(GradientPenalty(), R1(gamma=3.0, every=1), Drift(strength=0.5))),
    "weights": small(
        terms=(
            R1(every=1),
            Orthogonal(strength=0.3),
            HistoricalAverage(strength=0.5),
            Orthogonal(strength=0.2, player="G"),
        ),
        loss=Wasserstein(),
    ),
    "spectral norm": small(
        head=Head(Projection(), san=True),
        loss=Hinge(),
        d_normalizer=SpectralNorm(),
        g_normalizer=SpectralNorm(),
        terms=(R1(every=1),),
    ),
    "paired": small(loss=RelativisticPairing()),
    "paired, G on more": small(loss=RelativisticPairing(), g_batches=3),
    "all classify": small(head=Head(Auxiliary()), g_batches=2),
    "some classify": small(head=Head(SemiSupervised())),
}


def given():
    """What the steps are given: images, others that are held out, and others whose labels are known."""
    torch.manual_seed(0)
    return [batch(), batch(), batch()]


def stepped(cfg):
    """Gradients that the optimisers stepped with, statistics, and all weights and buffers after two iterations."""
    torch.manual_seed(0)
    gan, (real, held_out, labelled) = build(cfg), given()
    watch, stats = Watch(gan), []
    for nimg in (0, 8):
        torch.manual_seed(nimg)
        known = labelled if cfg.head.conditioning.classifies == "labelled" else None
        stats += [d_step(gan, real, nimg, held_out, known), g_step(gan, real, nimg, known)]
    state = {
        f"{name}.{key}": value for name, net in (("G", gan.G), ("D", gan.D)) for key, value in net.state_dict().items()
    }
    return watch, stats, state


def exactly(found, wanted):
    assert_close(found, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("micro_batch", [4, 2, 1])
@pytest.mark.parametrize("name", CASES)
def test_pieces_have_the_gradients_and_statistics_of_the_whole(name, micro_batch):
    whole, stats, state = stepped(CASES[name])
    pieces, of_pieces, same_state = stepped(replace(CASES[name], compute=Compute(micro_batch=micro_batch)))
    exactly(pieces.gradients, whole.gradients)
    exactly(of_pieces, stats)
    exactly(same_state, state)
    assert max(len(z) for z in whole.z) == 8 * CASES[name].g_batches
    assert {len(z) for z in pieces.z} == {micro_batch}
    assert torch.equal(torch.cat(pieces.z), torch.cat(whole.z))
    assert sum(g.abs().sum() for g in whole.gradients[0]["D"].values()) > 0.1


def test_batch_norm_and_what_it_remembers_are_those_of_a_piece():
    """And it remembers one update per update, as at once."""
    cfg = small(generator=DCGANGenerator(width=4), compute=Compute(micro_batch=4))
    gan = GAN.build(cfg, SPEC)
    seen = []
    norms = [m for m in gan.G.modules() if isinstance(m, nn.BatchNorm2d)]
    norms[0].register_forward_hook(lambda module, args, out: seen.append(args[0].mean((0, 2, 3)).detach()))
    g_step(gan, batch(), 0)
    assert len(seen) == 2
    assert not torch.equal(*seen)
    assert_close(norms[0].running_mean, 0.1 * seen[1])
    assert {int(norm.num_batches_tracked) for norm in norms} == {1}


# ---- more images for G -----------------------------------------------------------------------------------


@loop_over("loss", [NonSaturating(), RelativisticPairing()], ids=["unpaired", "paired"])
@loop_over("matching", [(), (FeatureMatching(strength=0.3),)], ids=["", "matching"])
def test_g_learns_from_several_batches_of_one_set_of_labels(loss, matching):
    cfg = small(head=Head(Auxiliary()), loss=loss, terms=matching, g_batches=2)
    gan, real = build(cfg), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = g_step(gan, real, 0)
    (z,) = watch.z
    assert z.shape == (16, 4)
    assert len(z.unique(dim=0)) == 16
    y = torch.tensor([label for label in real.y.tolist() for _ in range(2)])
    on_fake, on_real = reference.logits(reference.images(z, y), y), reference.logits(real.x, real.y)
    pairs = [loss.g(on_fake.fun[2 * i + j], on_real.fun[i]) for i in range(8) for j in range(2)]
    total = torch.stack(pairs).mean() + nn.functional.cross_entropy(on_fake.classes, y)
    if matching:
        total = total + 0.3 * (on_real.features.mean(0) - on_fake.features.mean(0)).square().sum()
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_d_sees_no_more_images_and_g_of_one_batch_is_what_it_was():
    one, two = (build(small(g_batches=k)) for k in (1, 2))
    of_one, of_two, real = Watch(one), Watch(two), batch()
    for gan in (one, two):
        d_step(gan, real, 0)
        g_step(gan, real, 0)
    assert torch.equal(of_one.z[0], of_two.z[0])
    assert [len(z) for z in of_one.z] == [8, 8]
    assert [len(z) for z in of_two.z] == [8, 16]
    assert repeated(real, 1) is real
    assert repeated(Batch(real.x), 2).y is None


def test_shares_of_processes_make_the_pairs_of_one(monkeypatch):
    """Of z and label, when G makes more images than D."""
    real, cfg = batch(), small(head=Head(Projection()), g_batches=3)
    calls = []

    def pairs(part, rank, world):
        monkeypatch.setattr("equipoise.train.drawing.rank", lambda: rank)
        monkeypatch.setattr("equipoise.train.drawing.world_size", lambda: world)
        gan = GAN.build(cfg, SPEC)
        gan.G.register_forward_pre_hook(lambda module, args: calls.append(args))
        g_step(gan, part, 0)
        return calls.pop()

    z, y = pairs(real, 0, 1)
    shares = [pairs(Batch(real.x[4 * r :][:4], real.y[4 * r :][:4]), r, 2) for r in (0, 1)]
    assert torch.equal(torch.cat([share[0] for share in shares]), z)
    assert torch.equal(torch.cat([share[1] for share in shares]), y)


# ---- memory ----------------------------------------------------------------------------------------------


class Saved:
    """The most bytes that graphs have held at a time, without the networks' own tensors and the batch."""

    def __init__(self, gan, real):
        given = [real.x, *(t for net in (gan.G, gan.D) for t in (*net.parameters(), *net.buffers()))]
        self.own = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.now = self.most = 0
        self.held = set()

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if key not in self.own and key not in self.held:
            self.held.add(key)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.free, key, storage.nbytes())
        return tensor

    def free(self, key, nbytes):
        self.held.discard(key)
        self.now -= nbytes


@pytest.mark.parametrize("penalties", [(), (R1(every=1),)], ids=["", "R1"])
def test_pieces_hold_their_share_of_the_memory(penalties):
    cfg = TrainConfig(
        data=small().data,
        generator=SANDigitsGenerator(z_dim=4, width=2),
        discriminator=SANDigitsDiscriminator(width=2),
        terms=penalties,
    )
    most = {}
    for micro_batch in (None, 16, 4):
        gan, real = GAN.build(replace(cfg, compute=Compute(micro_batch=micro_batch)), SPEC), batch(64)
        saved = Saved(gan, real)
        for step in (d_step, g_step):
            with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
                step(gan, real, 0)
        most[micro_batch] = saved.most
    assert most[None] > 64 * 28 * 28 * 4
    assert most[16] < 0.27 * most[None]
    assert most[4] < 0.08 * most[None]


# ---- what is refused -------------------------------------------------------------------------------------


def test_sizes_that_leave_a_remainder_are_refused_before_anything_is_written(tmp_path):
    assert [count_pieces(12, micro) for micro in (None, 100, 12, 6, 4, 1)] == [1, 1, 1, 2, 3, 12]
    with pytest.raises(ValueError, match=r"compute.micro_batch=5 does not divide the 12 images.*compute.micro_batch=4"):
        count_pieces(12, 5)
    for changes in ({"compute.micro_batch": 3}, {"compute.micro_batch": 9, "g_batches": 3}):
        with pytest.raises(ValueError, match=r"compute.micro_batch=.* does not divide the \d+ images of a process"):
            train(override(small(), changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    gan = GAN.build(small(compute=Compute(micro_batch=4)), SPEC)
    with pytest.raises(ValueError, match="7 images make no 2 equal pieces"):
        d_step(gan, batch(8), 0, batch(7))


@loop_over(
    ("fields", "named"),
    [
        ({"head": Head(san=True, normalize_loss=True), "loss": SoftLeastSquares()}, "head.normalize_loss=true"),
        ({"terms": (FeatureMatching(),)}, "FeatureMatching"),
        ({"terms": (Consensus(),)}, "Consensus"),
        ({"terms": (R1(), Dragan())}, "Dragan"),
    ],
)
def test_what_is_no_mean_over_images_is_refused(fields, named):
    cfg = small(**fields)
    message = rf"compute.micro_batch=4 and {named}.*reads a mean or spread of the whole batch.*compute.micro_batch=none"
    with pytest.raises(ValueError, match=message):
        override(cfg, {"compute.micro_batch": 4})


def test_a_run_in_pieces_ends_where_one_without_does(tmp_path):
    cfg = small(ema=EMAConfig(halflife_kimg=0.05), total_kimg=0.032)
    G, pieces = train(cfg, tmp_path / "whole"), train(replace(cfg, compute=Compute(micro_batch=2)), tmp_path / "pieces")
    assert_close(dict(pieces.named_parameters()), dict(G.named_parameters()), rtol=1e-4, atol=1e-6)
