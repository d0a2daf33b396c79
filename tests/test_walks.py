"""Walks between images of a generator: those of sampling at their ends, classes mixed in every way that a net has."""

import copy

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy import stats
from torch import nn
from torch.testing import assert_close

from equipoise.core.latents import slerp
from equipoise.core.types import ImageSpec
from equipoise.generate import (
    Generator,
    Latent,
    arithmetic,
    arithmetic_grid,
    draw_latents,
    images,
    interpolate,
    latent,
    mean_latent,
    mixed_classes,
    sample,
    standing_statistics,
    truncated,
)
from equipoise.models import DCGANGenerator, MLPGenerator, SANDigitsGenerator, TinyDigitsGenerator
from equipoise.nn import ConditionalBatchNorm, OneHot

CONDITIONAL = {
    "embedding": SANDigitsGenerator(z_dim=4, width=2),
    "one-hot": TinyDigitsGenerator(z_dim=4, width=2),
    "one-hot, no batch norm": MLPGenerator(z_dim=4, width=8, depth=1),
    "batch norms": DCGANGenerator(z_dim=4, width=2, class_input="batch_norm"),
    "shared embedding": DCGANGenerator(z_dim=6, width=2, class_input="shared", skip_z=True),
}


def build(config, num_classes=3):
    spec = ImageSpec(28, 1, num_classes)
    net = config.build(spec).eval().requires_grad_(False)
    for weight in net.parameters():  # as they start, images would be nearly grey, and all classes alike
        if weight.ndim > 1:
            nn.init.normal_(weight, 0.0, 0.5)
    y = torch.arange(64) % num_classes if num_classes else None
    return Generator(standing_statistics(net, lambda _: (torch.randn(64, config.z_dim), y)), config, spec)


def unconditional():
    return build(SANDigitsGenerator(z_dim=4, width=2), 0)


def of_mixed_vectors(net, a, b, t, z):
    """By changed weights: class 0 of a copy has the mixture of the vectors of classes a and b."""
    net = copy.deepcopy(net)

    def mix(table):
        table[0] = (1 - t) * table[a] + t * table[b]

    for module in net.modules():
        if isinstance(module, nn.Embedding):
            mix(module.weight)
        elif isinstance(module, ConditionalBatchNorm):
            mix(module.gain)
            mix(module.bias)
        elif isinstance(module, OneHot):
            rows = torch.eye(module.num_classes)
            mix(rows)
            module.forward = lambda y, rows=rows: rows[y]
    return net(z, torch.zeros(len(z), dtype=torch.int64))


@loop_over("config", CONDITIONAL.values(), ids=CONDITIONAL)
def test_classes_are_mixed_as_their_vectors(config):
    G = build(config)
    z = torch.randn(4, config.z_dim)
    y, other = torch.full((4,), 1), torch.full((4,), 2)
    t = torch.tensor([0.0, 0.25, 0.6, 1.0], dtype=torch.float64)
    with mixed_classes(G.net, y, other, t):
        x = G.net(z, y)
    assert torch.equal(x[:1], G.net(z, y)[:1])
    assert_close(x[3:], G.net(z, other)[3:])
    for i, share in enumerate(t):
        assert_close(x[i : i + 1], of_mixed_vectors(G.net, 1, 2, float(share), z[i : i + 1]))
    assert (x[1] - G.net(z, y)[1]).abs().mean() > 0.01
    assert not any(module._forward_hooks for module in G.net.modules())


class Own(nn.Module):
    """Reads classes from a table of its own, and has an embedding of something else."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 28 * 28))
        self.embed = nn.Embedding(5, 28 * 28)

    def forward(self, z, y):
        part = (z[:, 0] > 0).long() + 3
        return (self.table[y] + self.embed(part)).view(-1, 1, 28, 28).tanh()


def test_a_network_that_reads_classes_in_another_way_is_told_apart():
    G = Generator(Own().requires_grad_(False), SANDigitsGenerator(z_dim=4), ImageSpec(28, 1, 3))
    with pytest.raises(ValueError, match="this network cannot go from class to class"):
        interpolate(G, latent(G, 0), latent(G, 1), 3)
    assert len(interpolate(G, latent(G, 0), latent(G, 3), 3)) == 3  # of one class


def test_an_image_is_named_by_its_place_in_the_samples():
    for G in (build(CONDITIONAL["embedding"]), unconditional(), truncated(build(CONDITIONAL["one-hot"]), 0.5)):
        x, y = (np.concatenate(part) for part in zip(*sample(G, 40, seed=3), strict=True))
        for index in (0, 7, 39):
            point = latent(G, index, seed=3)
            assert point.y == (y[index] if G.conditional else None)
            one = images(G, point.z[None], None if point.y is None else torch.tensor([point.y]))
            np.testing.assert_allclose(one[0].astype(int), x[index], atol=1)
    assert latent(build(CONDITIONAL["embedding"]), 7, label=2).y == 2


@loop_over("name", ["embedding", "batch norms"])
def test_interpolation_goes_from_image_to_image_and_class_to_class(name):
    G = build(CONDITIONAL[name])
    x = np.concatenate([x for x, _ in sample(G, 20)])
    made = interpolate(G, latent(G, 4), latent(G, 17), 6)
    assert made.shape == (6, 28, 28, 1)
    for end, index in ((0, 4), (-1, 17)):
        np.testing.assert_allclose(made[end].astype(int), x[index], atol=1)
    a, b = latent(G, 4), latent(G, 17)
    z = slerp(a.z, b.z, torch.tensor([0.4]))
    half = of_mixed_vectors(G.net, a.y, b.y, 0.4, z)
    np.testing.assert_allclose(made[2].astype(float), ((half[0, 0] + 1) * 127.5)[..., None], atol=1)
    one_z = interpolate(G, latent(G, 4, label=1), latent(G, 4, label=2), 3, path="linear")
    np.testing.assert_allclose(one_z[2].astype(int), images(G, a.z[None], torch.tensor([2]))[0], atol=1)


def test_long_paths_are_made_in_pieces(monkeypatch):
    G = build(CONDITIONAL["one-hot"])
    whole = interpolate(G, latent(G, 0), latent(G, 1), 9)
    monkeypatch.setattr("equipoise.generate.walks.BATCH", 4)
    np.testing.assert_allclose(interpolate(G, latent(G, 0), latent(G, 1), 9).astype(int), whole, atol=1)


def test_bad_walks():
    G = unconditional()
    a, b = latent(G, 0), latent(G, 1)
    with pytest.raises(ValueError, match="at least the 2 frames at its ends, got frames=1"):
        interpolate(G, a, b, 1)
    with pytest.raises(ValueError, match="no path 'curved': choose one of spherical, linear"):
        interpolate(G, a, b, 3, path="curved")
    with pytest.raises(ValueError, match="take the linear path"):
        interpolate(G, a, Latent(torch.zeros(4), None), 3)
    with pytest.raises(ValueError, match="images are counted from 0, got -1"):
        latent(G, -1)
    with pytest.raises(ValueError, match="this generator is unconditional"):
        latent(G, 1, label=2)
    with pytest.raises(ValueError, match="there is no class 3"):
        latent(build(CONDITIONAL["one-hot"]), 1, label=3)


def test_arithmetic_is_that_of_means():
    G = unconditional()
    z = draw_latents(G, 100, seed=2).double().numpy()
    expected = z[[3, 17, 8]].mean(0) + z[[99, 0]].mean(0) - z[[5]].mean(0)
    found = arithmetic(G, plus=[[3, 17, 8], [99, 0]], minus=[[5]], seed=2)
    np.testing.assert_allclose(found.double(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="nothing is added"):
        arithmetic(G, plus=[], minus=[[1]])
    with pytest.raises(ValueError, match="a mean needs at least one image"):
        arithmetic(G, plus=[[1], []])


@loop_over("G", [unconditional(), build(CONDITIONAL["embedding"])], ids=["unconditional", "conditional"])
def test_the_picture_of_arithmetic_has_a_row_for_each_mean(G):
    x = np.concatenate([x for x, _ in sample(G, 20)])
    plus, minus = [[3, 17, 8], [6]], [[5, 2]]
    tiles, columns = arithmetic_grid(G, plus, minus)
    assert columns == 5
    rows = tiles.reshape(4, columns, 28, 28, 1)
    y = None if not G.conditional else torch.tensor([latent(G, 3).y])
    for row, group in zip(rows, (*plus, *minus), strict=False):
        np.testing.assert_allclose(row[: len(group)].astype(int), x[group], atol=1)
        assert not row[len(group) : -1].any()
        np.testing.assert_allclose(row[-1].astype(int), images(G, mean_latent(G, group)[None], y)[0], atol=1)
    result = images(G, arithmetic(G, plus, minus)[None], y)[0]
    np.testing.assert_allclose(rows[-1, -1].astype(int), result, atol=1)
    assert not rows[-1, -2].any()
    exact, _ = arithmetic_grid(G, plus, minus, noise=0)
    np.testing.assert_allclose(exact.reshape(rows.shape)[-1, :3].astype(int), result[None].repeat(3, 0), atol=1)
    assert (rows[-1, :3] != result).any()


def test_truncated_batch_norms_are_made_for_truncated_z():
    """z -> linear -> batch norm: whatever the truncation, what batch norm gives has mean 0 and variance 1."""
    net = nn.Sequential(nn.Linear(8, 3, bias=False), nn.BatchNorm1d(3)).requires_grad_(False)
    G = Generator(nn.Module(), SANDigitsGenerator(z_dim=8), ImageSpec(28))
    G = Generator(Called(net).eval(), G.config, G.spec)
    for t in (0.3, 1.5):
        made = truncated(G, t)
        expected = net[0].weight.square().sum(1) * stats.truncnorm(-t, t).var()
        assert_close(made.net.net[1].running_var, expected, rtol=0.05, atol=0)
        assert made.truncation == t
        assert draw_latents(made, 50).abs().max() <= t
        again = truncated(G, t)
        assert torch.equal(again.net.net[1].running_var, made.net.net[1].running_var)
    assert torch.equal(net[1].running_var, torch.ones(3))
    with pytest.raises(ValueError, match=r"this generator is truncated already, at 1\.5"):
        truncated(made, 0.5)
    with pytest.raises(ValueError, match="above 0"):
        truncated(G, -1.0)


class Called(nn.Module):
    """With labels, which it does not read."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z, y=None):
        return self.net(z)


def test_an_image_of_a_truncated_generator_does_not_depend_on_how_many_are_drawn():
    G = truncated(unconditional(), 0.7)
    assert torch.equal(draw_latents(G, 5, seed=1), draw_latents(G, 50, seed=1)[:5])
    whole = draw_latents(unconditional(), 50, seed=1)
    assert ((draw_latents(G, 50, seed=1) > 0) == (whole > 0)).all()


def test_truncated_batch_norms_see_all_classes_equally_often():
    """h = e(y), and batch norm: its mean is that of the embedding's rows, whatever z is."""
    net = nn.Sequential(nn.Embedding(5, 3), nn.BatchNorm1d(3)).eval().requires_grad_(False)
    G = Generator(OfClass(net), SANDigitsGenerator(z_dim=4), ImageSpec(28, 1, 5))
    made = truncated(G, 0.5).net.net[1]
    assert_close(made.running_mean, net[0].weight.mean(0))
    assert_close(made.running_var, net[0].weight.var(0, correction=0), rtol=1e-3, atol=0)


class OfClass(Called):
    def forward(self, z, y):
        return self.net(y)
