"""Architectures against the layer tables of their papers."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import copy_in_order, count, narrow_fields, of_g, open_gates
from torch import nn
from torch.testing import assert_close

from equipoise import models
from equipoise.core.types import ImageSpec
from equipoise.models import (
    DiscriminatorConfig,
    GeneratorConfig,
    Head,
    Hidden,
    NoConditioning,
    PerClass,
    Projection,
    SANDigitsDiscriminator,
    SANDigitsGenerator,
    TinyDigitsDiscriminator,
    TinyDigitsGenerator,
)
from equipoise.weights import SpectralNorm

ALL = [
    c
    for c in map(vars(models).get, models.__all__)
    if dataclasses.is_dataclass(c)
    and issubclass(c, GeneratorConfig | DiscriminatorConfig)
    and not inspect.isabstract(c)
]
GENERATORS = [c for c in ALL if issubclass(c, GeneratorConfig)]
DISCRIMINATORS = [c for c in ALL if issubclass(c, DiscriminatorConfig)]
OF_28 = (SANDigitsDiscriminator, SANDigitsGenerator, TinyDigitsDiscriminator, TinyDigitsGenerator)
RESTING = re.compile(r"to_image\.[01]\.|b(7|14)\.torgb|body\.(entries\.[12]\.from_image|b(7|14)\.fromrgb)")
"""Layers for images of 7x7 and 14x14, which a network that has grown to 28x28 does not use."""
GREY = ImageSpec(resolution=28, channels=1, num_classes=10)

every_generator = loop_over("generator", GENERATORS, ids=lambda c: c.__name__)
every_discriminator = loop_over("discriminator", DISCRIMINATORS, ids=lambda c: c.__name__)
conditional_or_not = loop_over("conditional", [False, True], ids=["unconditional", "conditional"])


def narrow(config, **fields):
    """A fast one."""
    return config(**narrow_fields(config, max(4 if config in OF_28 else 8, 2 * config.narrowest)), **fields)


def grey(config):
    """Grey images with classes, of 28x28 pixels, or of 32x32 for networks that make only powers of two."""
    head = (Head().factory(0),) if config in DISCRIMINATORS else ()
    try:
        narrow(config).build(GREY, *head)
    except ValueError:
        return dataclasses.replace(GREY, resolution=32)
    return GREY


def awake(net):
    """With what starts at 0, or alike for all classes, moved: gates of attention, tables of conditional norms."""
    for module in net.modules():
        if isinstance(module, models.ConditionalBatchNorm):
            nn.init.normal_(module.bias, std=0.1)
    return open_gates(net)


# ---- the published layer tables --------------------------------------------------------------------------------


@loop_over("classes", [0, 10])
def test_tiny_generator_has_the_published_weights(classes):
    """convT 64 -> 256 k3, -> 128 k4, -> 64 k3, -> 1 k4, biases, and a gain and a bias per normalised channel."""
    wanted = (
        ((64 + classes) * 256 * 3 * 3 + 256)
        + (256 * 128 * 4 * 4 + 128)
        + (128 * 64 * 3 * 3 + 64)
        + (64 * 1 * 4 * 4 + 1)
        + 2 * (256 + 128 + 64)
    )
    assert count(TinyDigitsGenerator().build(of_g(GREY, classes > 0))) == wanted


def test_tiny_generator_is_the_published_network():
    reference = nn.Sequential(
        *(nn.ConvTranspose2d(64, 256, 3, stride=2), nn.BatchNorm2d(256), nn.ReLU()),  # 3x3
        *(nn.ConvTranspose2d(256, 128, 4, stride=1), nn.BatchNorm2d(128), nn.ReLU()),  # 6x6
        *(nn.ConvTranspose2d(128, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),  # 13x13
        *(nn.ConvTranspose2d(64, 1, 4, stride=2), nn.Tanh()),  # 28x28
    )
    G, z = TinyDigitsGenerator().build(of_g(GREY, False)), torch.randn(4, 64)
    assert_close(G(z), copy_in_order(G, reference)(z[:, :, None, None]))


@loop_over("batch_norm", [False, True], ids=["", "batch_norm"])
def test_tiny_discriminator_is_the_published_network(batch_norm):
    """Its head, fed with the windows of the last map, is the last layer Conv2d(32, 1, 4, stride=2)."""
    reference = nn.Sequential(
        *(nn.Conv2d(1, 16, 4, stride=2), nn.LeakyReLU(0.2)),  # 13x13
        *(nn.Conv2d(16, 32, 4, stride=2), *([nn.BatchNorm2d(32)] if batch_norm else []), nn.LeakyReLU(0.2)),  # 5x5
        nn.Conv2d(32, 1, 4, stride=2, bias=False),  # 1x1
    )
    D, x = TinyDigitsDiscriminator(batch_norm=batch_norm).build(GREY, Head().factory(10)), torch.rand(4, 1, 28, 28)
    fun = D(x).fun
    assert fun.shape == (4, 1)
    assert_close(fun, copy_in_order(D, reference)(x).flatten(1))
    table = (1 * 16 * 4 * 4 + 16) + (16 * 32 * 4 * 4 + 32) + 32 * 1 * 4 * 4 + (2 * 32 if batch_norm else 0)
    assert count(D) == table


@loop_over("classes", [0, 10])
def test_san_generator_has_the_published_weights(classes):
    """Linear 100 (+ 100) -> 512·3·3, convT -> 256 k4, -> 128 k4, -> 1 k6, and an embedding of length 100."""
    embedding = classes * 100
    inputs = 100 + (100 if classes else 0)
    wanted = (
        embedding
        + (inputs * 512 * 3 * 3 + 512 * 3 * 3)
        + (512 * 256 * 4 * 4 + 256)
        + (256 * 128 * 4 * 4 + 128)
        + (128 * 1 * 6 * 6 + 1)
        + 2 * (256 + 128)
    )
    assert count(SANDigitsGenerator().build(of_g(GREY, classes > 0))) == wanted


def test_san_generator_is_the_published_network():
    reference = nn.Sequential(
        *(nn.Linear(200, 512 * 3 * 3), nn.LeakyReLU(0.01), nn.Unflatten(1, (512, 3, 3))),
        *(nn.ConvTranspose2d(512, 256, 4, stride=2, padding=1), nn.BatchNorm2d(256), nn.SiLU()),  # 6x6
        *(nn.ConvTranspose2d(256, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128), nn.SiLU()),  # 12x12
        *(nn.ConvTranspose2d(128, 1, 6, stride=2), nn.Tanh()),  # 28x28
    )
    G, z, y = SANDigitsGenerator().build(GREY), torch.randn(4, 100), torch.tensor([3, 1, 4, 1])
    wanted = torch.cat([z, G.embed.weight[y]], dim=1)
    with torch.no_grad():
        for a, b in zip([p for n, p in G.named_parameters() if "embed" not in n], reference.parameters(), strict=True):
            b.copy_(a)
    assert_close(G(z, y), reference(wanted))


def test_san_discriminator_is_the_published_network():
    reference = nn.Sequential(
        *(nn.Conv2d(1, 128, 6, stride=2), nn.LeakyReLU(0.2)),  # 12x12
        *(nn.Conv2d(128, 256, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),  # 6x6
        *(nn.Conv2d(256, 512, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),  # 3x3
        *(nn.Flatten(), nn.Linear(512 * 3 * 3, 1, bias=False)),
    )
    D, x = SANDigitsDiscriminator().build(GREY, Head().factory(10)), torch.rand(4, 1, 28, 28)
    assert_close(D(x).fun, copy_in_order(D, reference)(x))
    table = (1 * 128 * 6 * 6 + 128) + (128 * 256 * 4 * 4 + 256) + (256 * 512 * 4 * 4 + 512) + 512 * 3 * 3
    assert count(D) == table
    per_class = SANDigitsDiscriminator().build(GREY, Head(PerClass(), san=True).factory(10))
    assert count(per_class) == table + 9 * 512 * 3 * 3


def test_sn_of_the_san_discriminator_leaves_the_first_convolution():
    D = SANDigitsDiscriminator(width=4).build(GREY, Head(san=True).factory(10))
    SpectralNorm(skip=("body.0",))(D)
    assert [hasattr(D.body[i], "parametrizations") for i in (0, 2, 4)] == [False, True, True]


def test_the_class_reaches_the_tiny_generator_as_a_one():
    """One-hot, appended to z: class c is z-channel 64 + c."""
    G, z, y = TinyDigitsGenerator().build(GREY), torch.randn(3, 64), torch.tensor([0, 9, 4])
    onehot = torch.zeros(3, 10)
    for i, c in enumerate(y):
        onehot[i, c] = 1
    assert_close(G(z, y), G.layers(torch.cat([z, onehot], dim=1)[:, :, None, None]))


# ---- initialisation --------------------------------------------------------------------------------------------


@loop_over("net", ["G", "D"])
def test_dcgan_initialisation(net):
    """Convolutions N(0, 0.02²), batch-norm gains N(1, 0.02²) (not around 0), biases 0 (Radford et al. 2016)."""
    nets = {
        "G": TinyDigitsGenerator().build(GREY),
        "D": TinyDigitsDiscriminator(width=64, batch_norm=True).build(GREY, Head(init_std=0.02).factory(10)),
    }
    gains = []
    for module in nets[net].modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            w = module.weight
            assert w.std().item() == pytest.approx(0.02, rel=4 / w.numel() ** 0.5)
            assert abs(w.mean().item()) < 4 * 0.02 / w.numel() ** 0.5
        elif isinstance(module, nn.BatchNorm2d):
            gains.append(module.weight)
        if getattr(module, "bias", None) is not None:
            assert (module.bias == 0).all()
    pooled = torch.cat(gains)
    assert pooled.mean().item() == pytest.approx(1, abs=0.01)
    assert pooled.std().item() == pytest.approx(0.02, rel=0.3)


# ---- what every architecture keeps, and a new one inherits -------------------------------------------------------


@every_generator
@conditional_or_not
@loop_over("channels", [1, 3])
def test_a_generator_makes_images(generator, conditional, channels):
    cfg = narrow(generator)
    spec = dataclasses.replace(grey(generator), channels=channels)
    G, z, y = cfg.build(of_g(spec, conditional)), torch.randn(3, cfg.z_dim), torch.tensor([1, 2, 3])
    x = G(z * 100, y)
    assert x.shape == (3, channels, spec.resolution, spec.resolution)
    assert x.dtype == torch.float32
    assert cfg.styled or x.abs().max() <= 1


@every_generator
@conditional_or_not
def test_an_image_depends_on_its_own_z_and_class(generator, conditional):
    """In eval mode, on nothing else: an image alone is the image in a batch. An unconditional one ignores labels."""
    cfg = narrow(generator)
    G, y = awake(cfg.build(of_g(grey(generator), conditional))).double().eval(), torch.tensor([1, 2])
    z = torch.randn(2, cfg.z_dim, dtype=torch.float64)
    with torch.no_grad():
        for p in G.parameters():  # tables of the class may start equal for all classes, and gates at 0
            p.add_(0.05 * torch.randn_like(p))
    x = G(z, y)
    assert_close(G(z[:1], y[:1]), x[:1])
    for j in sorted({*range(4), *range(cfg.z_dim - 4, cfg.z_dim)}):  # at the ends of z and of its chunks
        moved = z.clone()
        moved[0, j] += 1
        found = G(moved, y)
        assert not torch.equal(found[0], x[0])
        assert_close(found[1], x[1])
    other = G(z, torch.tensor([7, 2]))
    assert torch.equal(other[0], x[0]) != conditional
    assert_close(other[1], x[1])
    if not conditional:
        assert torch.equal(G(z), x)


@every_generator
@conditional_or_not
def test_every_weight_of_a_generator_is_trained(generator, conditional):
    cfg = narrow(generator)
    G = awake(cfg.build(of_g(grey(generator), conditional)))
    x = G(torch.randn(10, cfg.z_dim), torch.arange(10))
    (x * torch.randn_like(x)).sum().backward()
    for name, p in G.named_parameters():
        if RESTING.search(name):
            assert p.grad is None
            continue
        assert p.grad.isfinite().all(), name
        assert name.endswith("bias") or p.grad.abs().sum() > 0, name  # biases before batch norm cancel


@every_generator
def test_a_conditional_generator_needs_labels(generator):
    G = narrow(generator).build(grey(generator))
    with pytest.raises(ValueError, match=r"conditioned on the class: call it with labels, G\(z, y\)"):
        G(torch.randn(2, narrow(generator).z_dim))


@every_discriminator
@loop_over(
    ("channels", "conditioning", "san"),
    [(1, NoConditioning, True), (3, Projection, False)],
    ids=["grey", "colour"],
)
def test_a_discriminator_reads_images_and_classes(discriminator, channels, conditioning, san):
    spec = dataclasses.replace(grey(discriminator), channels=channels)
    D = narrow(discriminator).build(spec, Head(conditioning(), san=san).factory(10)).double().eval()
    x, y = torch.randn(3, channels, spec.resolution, spec.resolution, dtype=torch.float64), torch.tensor([1, 2, 3])
    seen = x.clone()
    logits = D(x, y)
    assert logits.fun.shape[0] == 3
    assert logits.fun.ndim == 2
    assert (logits.dir is not None) == san
    assert torch.equal(x, seen)  # no layer works in place on its input
    assert_close(D(x[:1], y[:1]).fun, logits.fun[:1])
    other = D(x, torch.tensor([7, 2, 3])).fun
    assert torch.equal(other[0], logits.fun[0]) == (conditioning == NoConditioning)


@every_discriminator
@loop_over("san", [False, True], ids=["plain", "san"])
def test_every_weight_of_a_discriminator_is_trained(discriminator, san):
    spec = grey(discriminator)
    D = awake(narrow(discriminator).build(spec, Head(Projection(), san=san).factory(10)))
    logits = D(torch.randn(10, 1, spec.resolution, spec.resolution), torch.arange(10))
    sum((f * torch.randn_like(f)).sum() for f in (logits.fun, logits.dir) if f is not None).backward()
    for name, p in D.named_parameters():
        if RESTING.search(name):
            assert p.grad is None
            continue
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name


@every_discriminator
def test_the_head_gets_as_many_features_as_the_body_makes(discriminator):
    asked = []

    def factory(features, positions=1, *, joined=False, scaled=False):
        asked.append(features)
        assert features % positions == 0
        assert not joined
        return Head().factory(0)(features, positions, scaled=scaled)

    spec = grey(discriminator)
    D = narrow(discriminator).build(spec, factory)
    assert asked == [D.body(torch.randn(2, 1, spec.resolution, spec.resolution)).shape[1]]


def flattens_a_map(discriminator):
    """Whether its body ends by flattening a map, of whose positions the head must know."""
    body = narrow(discriminator).build(grey(discriminator), Head().factory(0)).body
    return isinstance(body, nn.Sequential) and isinstance(body[-1], nn.Flatten | nn.Unfold)


def last_map(body, x):
    """What `body` flattens in the end, and the kernel and stride with which it reads windows of it."""
    layers = list(body)
    flatten = next(i for i, m in enumerate(layers) if isinstance(m, nn.Flatten | nn.Unfold))
    h = nn.Sequential(*layers[:flatten])(x)
    assert len(layers) == flatten + 1
    windows = isinstance(layers[flatten], nn.Unfold)
    return h, (4 if windows else h.shape[-1]), (2 if windows else 1)


@loop_over(
    "discriminator",
    [
        *(c() for c in DISCRIMINATORS if flattens_a_map(c)),
        models.DCGANDiscriminator(norm="none", minibatch="std"),
    ],
    ids=lambda c: f"{type(c).__name__}-{getattr(c, 'minibatch', '')}",
)
@loop_over("san", [False, True], ids=["plain", "san"])
def test_the_class_joins_the_last_map(discriminator, san):
    """At each position, then a 1x1 convolution, and a last one as wide as the map (Reed et al. 2016, sec. 4.2)."""
    cfg = dataclasses.replace(discriminator, width=4)
    D = cfg.build(GREY, Head(Hidden(), san=san).factory(10))
    x, y = torch.randn(4, 1, 28, 28), torch.tensor([3, 1, 4, 1])
    h, kernel, stride = last_map(D.body, x)
    join, vector = D.head.join, D.head.last.conditioning.linear.weight
    e = join.embed(y)[:, :, None, None].expand(-1, -1, *h.shape[2:])
    joined = F.conv2d(torch.cat([h, e], dim=1), join.layer.weight[:, :, None, None], join.layer.bias)
    logits = F.conv2d(F.leaky_relu(joined, 0.2), vector.view(1, 512, kernel, kernel), stride=stride)
    assert_close(D(x, y).fun, logits.flatten(1))
    assert join.layer.in_features == h.shape[1] + 128


def test_features_without_positions_meet_the_class_as_a_vector():
    """An MLP's, and those beside which minibatch discrimination has put what belongs to no position."""
    for cfg in (models.MLPDiscriminator(width=6), models.DCGANDiscriminator(width=2, minibatch="discrimination")):
        D = cfg.build(GREY, Head(Hidden()).factory(10))
        x, y = torch.randn(4, 1, 28, 28), torch.tensor([3, 1, 4, 1])
        vector = torch.cat([D.body(x), D.head.join.embed(y)], dim=1)
        hidden = F.leaky_relu(D.head.join.layer(vector), 0.2)
        assert_close(D(x, y).fun, hidden @ D.head.last.conditioning.linear.weight.T)


@loop_over("config", OF_28, ids=lambda c: c.__name__)
def test_another_resolution_is_refused(config):
    for resolution in (32, 14):
        spec = dataclasses.replace(GREY, resolution=resolution)
        head = (Head().factory(0),) if config in DISCRIMINATORS else ()
        with pytest.raises(ValueError, match=f"{config.__name__} makes 28x28.* has {resolution}x{resolution}"):
            config().build(spec, *head)


@loop_over("config", ALL, ids=lambda c: c.__name__)
def test_equal_seeds_build_equal_networks(config):
    """On every process: they start equal without exchanging anything."""
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        head = (Head().factory(0),) if config in DISCRIMINATORS else ()
        states.append(torch.cat([p.flatten() for p in narrow(config).build(grey(config), *head).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
