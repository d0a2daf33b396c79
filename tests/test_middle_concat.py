"""The class joined to a map in the middle of D, against its definition, in every architecture that has blocks."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from loops import loop_over
from networks import assert_trained, shrunk
from torch import nn
from torch.testing import assert_close

from equipoise import models
from equipoise.config import override
from equipoise.core.types import Batch, ImageSpec
from equipoise.evaluate import rebuild
from equipoise.models import (
    Auxiliary,
    Head,
    Hidden,
    Input,
    NoConditioning,
    PerClass,
    Projection,
    ResNetCritic,
    ResNetDiscriminator,
    ResNetGenerator,
    SemiSupervised,
)
from equipoise.models.counts import count, on_meta
from equipoise.nn import HiddenConcat, HiddenHead, LinearHead, MiddleConcat, SANHead, SelfAttention
from equipoise.nn.conditioning import EMBED
from equipoise.nn.residual import DownBlock
from equipoise.recipes import load
from equipoise.rules import FreezeD
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm, remove, spectral_norms, spectral_stats, weighted_layers

SPEC = ImageSpec(64, channels=3, num_classes=5)
y = torch.tensor([4, 0, 0, 2])
ALL = {
    "resnet": ResNetDiscriminator(width=4),
    "resnet constant": ResNetDiscriminator(width=4, channels="constant"),
    "resnet layer": ResNetDiscriminator(width=4, norm="layer"),
    "critic": ResNetCritic(width=4),
}
"""The published one, with its choices, and every other discriminator that has the field."""
OTHERS = [
    c for c in map(vars(models).get, models.__all__) if hasattr(c, "join") and not c.__name__.startswith("ResNet")
]
for component in OTHERS:
    ALL[component.__name__] = shrunk(component(), width=4, attention=8)
    if hasattr(component, "checkpoint"):
        ALL[f"{component.__name__} checkpoint"] = shrunk(component(), width=4, attention=16, checkpoint=True)
every = loop_over("config", ALL.values(), ids=ALL)
plain_and_san = loop_over("san", [False, True], ids=["plain", "san"])


def discriminator(config, join=3, san=False, spec=SPEC):
    torch.manual_seed(0)
    D = Head(Hidden(), san=san).build(replace(config, join=join).build, spec)
    for module in D.modules():
        if isinstance(module, SelfAttention):
            nn.init.constant_(module.gamma, 0.5)
    return D


def images():
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def blocks(net):
    return [module for module in net.modules() if isinstance(module, DownBlock)]


# ---- what it is ----------------------------------------------------------------------------------------------------


@every
@plain_and_san
@loop_over("join", [1, 3])
def test_it_is_a_map_with_the_embedding_at_each_position(config, san, join):
    """The map after `join` blocks and attention there, e(y) behind its channels, what follows, and the head."""
    D, x = discriminator(config, join, san), images()
    h = D.body.front(x)
    last = blocks(D.body.front)[-1]
    assert h.shape[1] == last.conv2.out_channels
    appended = torch.zeros(4, h.shape[1] + EMBED, *h.shape[2:])
    for i, label in enumerate(y):
        appended[i, : h.shape[1]] = h[i]
        for channel, value in enumerate(D.body.embed.weight[label]):
            appended[i, h.shape[1] + channel] = value
    logits = D(x, y)
    assert_close(logits.features, D.body.rest(appended))
    assert_close(logits.fun, logits.features @ D.head.conditioning.linear.weight.T)
    assert type(D.head) is (SANHead if san else LinearHead)
    assert (logits.dir is None) != san
    assert len(blocks(D.body.front)) == join
    following = blocks(D.body.rest)[0]
    assert following.conv1.in_channels == following.shortcut.in_channels == h.shape[1] + EMBED


@every
def test_all_blocks_are_those_of_the_same_d_without_a_class(config):
    """In their order and with their attention; but for the one that reads the class, of the same shape."""
    body, alone = discriminator(config).body, Head().build(config.build, SPEC).body
    both = [m for part in (body.front, body.rest) for m in part.modules() if isinstance(m, DownBlock | SelfAttention)]
    one = [m for m in alone.modules() if isinstance(m, DownBlock | SelfAttention)]
    assert [type(m) for m in both] == [type(m) for m in one]
    changed = [
        [a.shape for a in m.state_dict().values()] != [b.shape for b in n.state_dict().values()]
        for m, n in zip(both, one, strict=True)
    ]
    assert sum(changed) == 1
    assert both[changed.index(True)] is blocks(body)[3]


def weights(c_in, c_out, kernel=3):
    return c_in * c_out * kernel**2 + c_out


def test_weights_of_the_published_one():
    """`SNResNetConcatDiscriminator` of pfnet-research/sngan_projection, ch=64, 1000 classes, without the last bias.

    Its fourth block is given the channels of the third, 256, and reads 128 more; here its hidden layer has all 384.
    """
    D = Head(Hidden()).build(ResNetDiscriminator(join=3).build, ImageSpec(128, 3, 1000)).requires_grad_(False)
    wanted = weights(3, 64) + weights(64, 64) + weights(3, 64, 1) + 1000 * 128 + 1024
    for i, (c_in, c_out) in enumerate(pairwise([64, 128, 256, 512, 1024, 1024])):
        read = c_in + 128 * (i == 2)
        wanted += weights(read, read) + weights(read, c_out) + (weights(read, c_out, 1) if c_in != c_out else 0)
    assert sum(p.numel() for p in D.parameters()) == wanted == 30_538_624
    bound = (6 / 1128) ** 0.5  # Glorot & Bengio 2010, as there
    assert D.body.embed.weight.abs().max() <= bound
    assert D.body.embed.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_zero_leaves_the_class_to_the_head():
    D = discriminator(ResNetDiscriminator(width=4), join=0)
    assert type(D.body) is nn.Sequential
    assert (type(D.head), type(D.head.join)) == (HiddenHead, HiddenConcat)


# ---- training ------------------------------------------------------------------------------------------------------


@every
@plain_and_san
def test_every_weight_is_trained_and_only_the_classes_of_the_batch(config, san):
    D = discriminator(config, san=san)
    logits = D(images(), y)
    sum((f * torch.randn_like(f)).sum() for f in (logits.fun, logits.dir) if f is not None).backward()
    assert_trained(D)
    assert (D.body.embed.weight.grad.abs().sum(1) > 0).tolist() == [True, False, True, False, True]


@every
def test_an_image_reads_its_own_label(config):
    D, x = discriminator(config), images()
    with torch.no_grad():
        before, after = (D(x, labels).fun[:, 0] for labels in (y, torch.tensor([4, 0, 1, 2])))
    assert (before != after).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match=r"call it with labels, D\(x, y\)"):
        D(x)


@every
@plain_and_san
def test_spectral_norm_reaches_every_layer_and_the_embedding(config, san):
    D = discriminator(config, san=san)
    SpectralNorm(iterations=10)(D)
    x = images()
    for _ in range(3):
        D(x[:1], y[:1])
    found = spectral_norms(D)
    assert "body.embed" in found
    assert (
        len(found)
        == len(list(weighted_layers(D)))
        == len([m for m in D.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]) - (1 if san else 0)
    )
    for name, sigma in found.items():
        assert sigma.item() == pytest.approx(1, abs=0.05), name
    wanted = D.eval()(x, y).fun
    assert_close(copy.deepcopy(D)(x, y).fun, wanted)
    assert_close(remove(copy.deepcopy(D))(x, y).fun, wanted)
    assert "D/lipschitz" not in spectral_stats(D)  # no chain: no bound is known


def test_bfloat16_agrees():
    D, x = discriminator(ResNetDiscriminator(width=8)), images()
    fun = D(x, y).fun
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(D(x, y).fun, fun, rtol=0.05, atol=0.05 * fun.abs().max().item())


def test_checkpointing_changes_no_gradient():
    for config in (config for config in ALL.values() if getattr(config, "checkpoint", False)):
        found = []
        for checkpoint in (False, True):
            D = discriminator(replace(config, checkpoint=checkpoint))
            D(images(), y).fun.square().sum().backward()
            found.append([p.grad for p in D.parameters()])
        assert_close(*found)


@plain_and_san
def test_both_steps_of_the_published_variant(san):
    changes = {"head.conditioning": Hidden(), "head.san": san, "discriminator.join": 3}
    cfg = override(load("sngan_projection")[0], {"generator.width": 2, "discriminator.width": 2} | changes)
    gan = GAN.build(cfg, SPEC)
    for step, net in ((d_step, gan.D), (g_step, gan.G)):
        before = [p.detach().clone() for p in net.parameters()]
        stats = step(gan, Batch(images(), y), 0)
        assert all(value.isfinite() for value in stats.values()), stats
        assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_freezing_counts_the_layers_before_the_embedding_first():
    """Three layers of the first block, and of each other; then the embedding; then those after it."""
    D = discriminator(ResNetDiscriminator(width=4))
    names = {id(p): name for name, p in D.named_parameters()}
    frozen = [names[id(p)] for p in FreezeD(run="runs/a", layers=10).frozen(D)]
    assert frozen == [n for n in names.values() if n.startswith(("body.front", "body.embed"))]


def test_it_is_counted_on_the_meta_device():
    _, D, _, of_d = on_meta(ResNetGenerator(width=4), ResNetDiscriminator(width=4, join=3), Head(Hidden()), SPEC)
    real = discriminator(ResNetDiscriminator(width=4))
    assert count(D, of_d).parameters == sum(p.numel() for p in real.parameters())


# ---- what does not go together -------------------------------------------------------------------------------------


@every
def test_it_is_the_hidden_conditioning_alone(config):
    for conditioning in (NoConditioning, Projection, PerClass, Input, Auxiliary, SemiSupervised):
        match = rf"needs head.conditioning=Hidden, got head.conditioning={conditioning.__name__}\(.*\): set Hidden"
        with pytest.raises(ValueError, match=match):
            Head(conditioning()).build(replace(config, join=3).build, SPEC)


@every
def test_it_joins_between_two_blocks(config):
    most = len(blocks(Head().build(config.build, SPEC))) - 1
    assert discriminator(config, join=most)(images(), y).fun.shape == (4, 1)
    match = rf"\(join={most + 1}\): .* it has {most + 1} blocks, .*Set join to 1 to {most}, or 0"
    with pytest.raises(ValueError, match=match):
        discriminator(config, join=most + 1)


def test_no_features_without_the_class():
    cfg = override(load("sngan_projection")[0], {"head.conditioning": Hidden(), "discriminator.join": 2})
    cfg = override(cfg, {"generator.width": 2, "discriminator.width": 2})
    D = rebuild(cfg, SPEC, GAN.build(cfg, SPEC).D.state_dict(), 0, "cpu")
    assert isinstance(D.net.body, MiddleConcat)
    with pytest.raises(ValueError, match=r"features of this D would know the class.*Hidden without discriminator.join"):
        D.body()
    assert D.lipschitz is None
