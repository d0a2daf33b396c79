"""Activation checkpointing: equal outputs, gradients and buffers, and fewer activations."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from networks import published_with, shrunk
from processes import on_two_processes
from torch import nn
from torch.testing import assert_close

from equipoise.compute.recompute import recomputed
from equipoise.config import TrainConfig
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import Digits
from equipoise.losses import R1, Hinge
from equipoise.models import Head, Projection
from equipoise.nn import SyncBatchNorm
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm

SPEC = ImageSpec(16, channels=3, num_classes=4)
FAMILIES = published_with("checkpoint")
SMALL = {"z_dim": 6, "width": 2, "embed": 3, "attention": 8}
families = pytest.mark.parametrize(
    ("generator", "discriminator"),
    [tuple(shrunk(network, **SMALL) for network in pair) for pair in FAMILIES.values()],
    ids=FAMILIES,
)


def batch(n=6):
    g = torch.Generator().manual_seed(3)
    return Batch(torch.rand(n, 3, 16, 16, generator=g) * 2 - 1, torch.arange(n) % 4)


def gan(generator, discriminator, checkpoint):
    """With open attention."""
    players = GAN.build(
        TrainConfig(
            data=Digits(),
            generator=dataclasses.replace(generator, checkpoint=checkpoint),
            discriminator=dataclasses.replace(discriminator, checkpoint=checkpoint),
            head=Head(Projection()),
            loss=Hinge(),
            g_normalizer=SpectralNorm(),
            d_normalizer=SpectralNorm(),
            g_optim=Adam(lr=1e-3),
            d_optim=Adam(lr=1e-3),
            terms=(R1(every=2),),
            batch_size=6,
        ),
        SPEC,
    )
    for net in (players.G, players.D):
        for name, p in net.named_parameters():
            if name.endswith("gamma"):
                nn.init.constant_(p, 0.5)
    return players


@families
def test_training_is_the_same(generator, discriminator):
    """Weights, singular vectors, running statistics and their counters after two updates of each player, with R1."""
    plain, saving = (gan(generator, discriminator, checkpoint) for checkpoint in (False, True))
    for i in range(2):
        for players in (plain, saving):
            d_step(players, batch(), 6 * i)
            g_step(players, batch(), 6 * i)
    for one, other in ((plain.D, saving.D), (plain.G, saving.G)):
        wanted, found = one.state_dict(), other.state_dict()
        assert set(found) == set(wanted)
        assert any(name.endswith("._u") for name in found)
        for name, value in wanted.items():
            assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


class Counted(nn.Module):
    """conv and batch norm, spectrally normalised; counts its forwards."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.calls = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), 0
        SpectralNorm()(self)

    def forward(self, x, y=None):
        self.calls += 1
        return self.norm(self.conv(x)).tanh()


def test_state_moves_once_and_gradients_know_which_state_they_are_of():
    """Called twice before one backward, as D on real and generated images.

    The first call's singular vectors are not the last ones: to recompute from those would give other gradients.
    """
    torch.manual_seed(0)
    plain = Counted()
    saving = copy.deepcopy(plain)
    a, b = torch.randn(4, 3, 6, 6), torch.randn(4, 3, 6, 6)
    target = torch.randn(4, 8, 6, 6)
    before = {n: v.clone() for n, v in plain.named_buffers()}
    for net, call in ((plain, lambda net, x: net(x)), (saving, recomputed)):
        ((call(net, a) - call(net, b)) * target).square().sum().backward()
    assert (plain.calls, saving.calls) == (2, 4)
    for (name, wanted), found in zip(plain.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(found, wanted), name
        assert not torch.equal(wanted, before[name]), name
    assert saving.norm.num_batches_tracked == 2
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert_close(q.grad, p.grad, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_second_gradients():
    """Of ‖∇_x‖², twice through one graph."""
    torch.manual_seed(0)
    plain = Counted()
    saving = copy.deepcopy(plain)
    x = torch.randn(4, 3, 6, 6, requires_grad=True)
    target = torch.randn(4, 8, 6, 6)
    for net, call in ((plain, lambda net, x: net(x)), (saving, recomputed)):
        out = (call(net, x) * target).sum()
        (slope,) = torch.autograd.grad(out, x, create_graph=True)
        (slope.square().sum() + out).backward()
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        assert_close(q.grad, p.grad, rtol=1e-4, atol=1e-6)
    for wanted, found in zip(plain.buffers(), saving.buffers(), strict=True):
        assert torch.equal(found, wanted)


def gradients_on(rank):
    """Of the plain call and of the recomputed one, where each process has images of its own; and the statistics."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), SyncBatchNorm(4), nn.Tanh())
    saving = copy.deepcopy(plain)
    x = torch.randn(2, 2, 3, 6, 6)[rank]
    plain(x).square().sum().backward()
    recomputed(saving, x).square().sum().backward()
    return [[*(p.grad for p in net.parameters()), *net.buffers()] for net in (plain, saving)]


def test_norms_of_all_processes(tmp_path):
    """They exchange statistics in the backward too, in which all take part."""
    for plain, saving in on_two_processes(gradients_on, tmp_path / "ranks"):
        for wanted, found in zip(plain, saving, strict=True):
            assert_close(found, wanted)


def test_without_gradients_it_is_a_plain_call():
    net = Counted()
    with torch.no_grad():
        y = recomputed(net, torch.randn(2, 3, 6, 6), None)
    assert net.calls == 1
    assert not y.requires_grad


def held(net, *inputs):
    """Numbers that autograd keeps for the backward of net(*inputs), parameters aside, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = {}

    def note(t):
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t  # held, so that no other takes its place
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        net(*inputs)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


@families
def test_less_is_kept(generator, discriminator):
    """Less than half: the blocks' inputs, which checkpoint keeps itself, and the first and last layers' activations."""
    batch_size, spec = 8, ImageSpec(32, channels=3, num_classes=4)
    z, y, x = torch.randn(batch_size, 6), torch.arange(batch_size) % 4, torch.randn(batch_size, 3, 32, 32)
    for make, inputs in (
        (lambda c: dataclasses.replace(generator, width=4, checkpoint=c).build(spec), (z, y)),
        (lambda c: dataclasses.replace(discriminator, width=4, checkpoint=c).build(spec, Head().factory(4)), (x,)),
    ):
        assert held(make(True), *inputs) < 0.5 * held(make(False), *inputs)
