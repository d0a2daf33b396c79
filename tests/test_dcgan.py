"""DCGAN against networks written out by hand, and what each of its settings must do."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import assert_trained, copy_in_order, count, of_g, spread
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise.config import components, override
from equipoise.core.grammar import parse
from equipoise.core.types import ImageSpec
from equipoise.generate import Generator, standing_statistics
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head, NoConditioning, Projection
from equipoise.nn import LinearConditionalBatchNorm, SyncBatchNorm
from equipoise.rules import EMA
from equipoise.train import train
from equipoise.weights import ExactSpectralNorm, NoNormalizer, normalizers, spectral_norms

GREY, COLOUR = ImageSpec(28, channels=1, num_classes=10), ImageSpec(64, channels=3, num_classes=10)
NORMS = ["none", "batch", "sync_batch", "layer", "instance", "group"]
MIXING = ("batch", "sync_batch")
GENERATORS = {
    **{norm: {"norm": norm} for norm in [*NORMS, "virtual"]},
    "concat": {"conditional": True},
    "by_class": {"conditional": True, "class_input": "batch_norm"},
    "virtual_concat": {"conditional": True, "norm": "virtual"},
    "shared": {"conditional": True, "class_input": "shared", "embed": 5},
    "skip_z": {"skip_z": True},
    "skip_z_concat": {"conditional": True, "skip_z": True, "norm": "sync_batch"},
    "biggan": {"conditional": True, "class_input": "shared", "embed": 5, "skip_z": True},
}
BIGGAN = GENERATORS["biggan"]
DISCRIMINATORS = {
    **{norm: {"norm": norm} for norm in NORMS},
    "discrimination": {"norm": "none", "minibatch": "discrimination"},
    "std": {"norm": "none", "minibatch": "std"},
}
every_generator = loop_over("fields", GENERATORS.values(), ids=GENERATORS)
every_discriminator = loop_over("fields", DISCRIMINATORS.values(), ids=DISCRIMINATORS)
resolutions = loop_over("resolution", [28, 32, 48, 64, 128])
with_channels = loop_over("channels", [1, 3])
conditional_or_not = loop_over("conditional", [False, True], ids=["unconditional", "conditional"])


def generator(spec=GREY, *, conditional=False, **fields):
    return DCGANGenerator(**{"z_dim": 6, "width": 8} | fields).build(of_g(spec, conditional))


def discriminator(spec=GREY, conditioning=NoConditioning, **fields):
    return DCGANDiscriminator(**{"width": 8} | fields).build(spec, Head(conditioning()).factory(spec.num_classes))


# ---- the layers ------------------------------------------------------------------------------------------------


@resolutions
@with_channels
@conditional_or_not
def test_shapes(resolution, channels, conditional):
    spec = ImageSpec(resolution, channels, 10)
    G = generator(spec, width=2, conditional=conditional)
    D = discriminator(spec, Projection if conditional else NoConditioning, width=2)
    y = torch.tensor([4, 2, 9])
    x = G(100 * torch.randn(3, 6), y)
    assert x.shape == (3, channels, resolution, resolution)
    assert x.abs().max() <= 1
    assert D(x, y).fun.shape == (3, 1)


def test_parameters_of_the_64x64_networks():
    """100 -> 512 -> 256 -> 128 -> 64 -> 3 and 3 -> 64 -> 128 -> 256 -> 512 -> 1; the widely used tutorial network.

    That one has 3,576,704 and 2,765,568; here G's last and D's first layer, which no norm follows, have biases.
    """
    pairs = [(512, 256), (256, 128), (128, 64), (64, 3)]
    weights = 16 * sum(a * b for a, b in pairs)
    G = 16 * 100 * 512 + weights + 2 * (512 + 256 + 128 + 64) + 3
    D = weights + 2 * (512 + 256 + 128) + 64 + 16 * 512
    assert (G, D) == (3_576_704 + 3, 2_765_568 + 64)
    assert count(DCGANGenerator().build(of_g(COLOUR, False))) == G
    assert count(DCGANDiscriminator().build(COLOUR, Head().factory(0))) == D
    conditional = DCGANGenerator().build(COLOUR)
    assert count(conditional) == G + 10 * 16 * 512
    by_class = DCGANGenerator(class_input="batch_norm").build(COLOUR)
    assert count(by_class) == G + 9 * 2 * (512 + 256 + 128 + 64)
    biggan = DCGANGenerator(class_input="shared", skip_z=True).build(COLOUR)
    features = 512 + 256 + 128 + 64  # gains and biases read 128 numbers of the class and 20 of z, the first layer 20
    assert count(biggan) == G - 16 * 80 * 512 + 10 * 128 + 2 * (128 + 20 - 1) * features
    discrimination = DCGANDiscriminator(minibatch="discrimination").build(COLOUR, Head().factory(0))
    assert count(discrimination) == D + 16 * 512 * 100 * 5 + 100
    assert count(DCGANDiscriminator(minibatch="std").build(COLOUR, Head().factory(0))) == D + 16


@conditional_or_not
def test_the_generator_is_the_network_written_out(conditional):
    """Of 28x28: 7 -> 14 -> 28. The class is a one behind z."""
    inputs = 16 if conditional else 6
    reference = nn.Sequential(
        *(nn.Linear(inputs, 16 * 7 * 7, bias=False), nn.Unflatten(1, (16, 7, 7)), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Tanh()),
    )
    G, z, y = spread(generator(conditional=conditional)), torch.randn(5, 6), torch.tensor([3, 1, 4, 1, 5])
    h = torch.cat([z, torch.eye(10)[y]], dim=1) if conditional else z
    with torch.no_grad():  # as a projection, the first layer's weight is (z, 16, 7, 7), a linear layer's (16·7·7, z)
        first, *others = G.parameters()
        reference[0].weight.copy_(first.flatten(1).T)
        for a, b in zip(others, list(reference.parameters())[1:], strict=True):
            b.copy_(a)
    assert_close(G(z, y), reference(h))


def test_the_discriminator_is_the_network_written_out():
    """Of 128x128, with five halvings: 8w channels are the most."""
    spec, w = ImageSpec(128, channels=3), 4
    widths = [w, 2 * w, 4 * w, 8 * w, 8 * w]
    layers = [nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.2)]
    for a, b in pairwise(widths):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    last = nn.Conv2d(8 * w, 1, 4, bias=False)  # the head
    reference = nn.Sequential(*layers, last, nn.Flatten())
    D, x = spread(discriminator(spec, width=w)), torch.randn(4, 3, 128, 128)
    assert_close(D(x).fun, copy_in_order(D, reference)(x))


@loop_over(
    ("resolution", "widths"),
    {8: [1], 10: [1], 28: [2, 1], 32: [4, 2, 1], 64: [8, 4, 2, 1], 256: [8, 8, 8, 4, 2, 1]}.items(),
)
def test_channels_double_towards_the_smallest_map_and_are_capped(resolution, widths):
    spec = ImageSpec(resolution, channels=1)
    G, D = generator(spec, width=3), discriminator(spec, width=3)
    up = [m.out_channels for m in G.modules() if isinstance(m, nn.ConvTranspose2d)]
    down = [m.out_channels for m in D.modules() if isinstance(m, nn.Conv2d)]
    assert up == [*(3 * w for w in widths), 1]
    assert down == [3 * w for w in reversed(widths)]


@loop_over("norm", [*NORMS[1:], "virtual"])
def test_neither_output_nor_input_is_normalised(norm):
    """DCGAN's rule: every layer but G's last and D's first."""
    normed = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)
    G = generator(COLOUR, norm=norm)
    layers = [type(m).__name__ for m in G.modules() if not list(m.children())]
    norms = [name for name in layers if name.endswith(("Norm", "Norm2d"))]
    assert len(norms) == 4
    assert layers[-4:] == [norms[-1], "ReLU", "ConvTranspose2d", "Tanh"]
    if norm != "virtual":
        body = discriminator(COLOUR, norm=norm).body
        assert sum(isinstance(m, normed) for m in body) == 3
        assert [type(m).__name__ for m in body][:3] == ["Conv2d", "LeakyReLU", "Conv2d"]
        assert isinstance(body[3], normed)


@loop_over(("width", "groups"), {1: [1, 1], 2: [1, 2], 3: [1, 3], 6: [3, 6], 48: [24, 32], 64: [32, 32]}.items())
def test_group_norm_finds_its_groups(width, groups):
    """The most that divide, up to 32, of two features or more: of one, it would be instance norm."""
    G = generator(norm="group", width=width)
    found = [m.num_groups for m in G.modules() if isinstance(m, nn.GroupNorm)]
    assert found == groups[::-1]


def test_impossible_sizes_are_refused_with_the_nearest():
    near = {
        50: "48 or data.resolution=56",
        7: "8,",
        1: "8,",
        9: "8 or data.resolution=10",
        100: "96 or .*112",
        57: "56",
    }
    for resolution, sizes in near.items():
        for build in (generator, discriminator):
            with pytest.raises(ValueError, match=f"{resolution} is none of these numbers.*data.resolution={sizes}"):
                build(ImageSpec(resolution))


# ---- initialisation ----------------------------------------------------------------------------------------------


@every_generator
def test_initial_weights_of_the_generator(fields):
    """N(0, 0.02²), gains of whatever norm N(1, 0.02²), biases 0 (Radford et al. 2016)."""
    check_initial_weights(generator(COLOUR, width=32, z_dim=50, **fields), fields.get("norm") != "none")


@every_discriminator
def test_initial_weights_of_the_discriminator(fields):
    check_initial_weights(discriminator(COLOUR, width=32, **fields).body, fields["norm"] != "none")


def check_initial_weights(net, normalised):
    gains = []
    conditioned = [n for n, m in net.named_modules() if isinstance(m, LinearConditionalBatchNorm)]
    linear = {f"{n}.{of}.weight" for n in conditioned for of in ("gain", "bias")}
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all(), name
        elif name == "embed.weight":
            assert p.std().item() == pytest.approx(1, rel=0.3), name  # of 50 numbers
        elif p.ndim == 4 or name in linear:
            assert p.std().item() == pytest.approx(0.02, rel=4 / p.numel() ** 0.5), name
            assert abs(p.mean().item()) < 4 * 0.02 / p.numel() ** 0.5, name
        elif name.endswith(".T.weight"):  # of minibatch discrimination: PyTorch's, U(±1/√F), whatever F is
            assert p.abs().max().item() == pytest.approx(p.shape[1] ** -0.5, rel=0.01)
        else:
            gains.append(p.flatten())
    assert bool(gains or linear) == normalised
    if gains:
        pooled = torch.cat(gains)
        assert pooled.mean().item() == pytest.approx(1, abs=0.01)
        assert pooled.std().item() == pytest.approx(0.02, rel=0.2)


# ---- every setting trains ----------------------------------------------------------------------------------------


@every_generator
@loop_over("spec", [GREY, COLOUR], ids=["28", "64x3"])
def test_every_weight_of_the_generator_is_trained(fields, spec):
    """Biases too: none is before a norm, which would cancel it."""
    G = generator(spec, **fields)
    x = G(torch.randn(10, 6), torch.arange(10))
    (x * torch.randn_like(x)).sum().backward()
    assert_trained(G, least=1e-6)


@every_discriminator
@loop_over("spec", [GREY, COLOUR], ids=["28", "64x3"])
def test_every_weight_of_the_discriminator_is_trained_also_through_a_gradient(fields, spec):
    D = spread(discriminator(spec, **fields))
    x = torch.randn(8, spec.channels, spec.resolution, spec.resolution, requires_grad=True)
    logits = D(x).fun
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    for value in (logits.square().sum(), slope.square().sum() if fields["norm"] not in MIXING else logits.sum()):
        value.backward(retain_graph=True)
    assert_trained(D, least=1e-6)


@loop_over("normalizer", [n for n in normalizers.__all__ if n.endswith("Norm")])
def test_normalised_networks(normalizer):
    """Every weight there is, that of minibatch discrimination included; outputs and gradients stay finite."""
    G, D = generator(norm="virtual"), discriminator(norm="layer", minibatch="discrimination")
    for net in (G, D):
        getattr(normalizers, normalizer)()(net)
    weighted = [m for net in (G, D) for m in net.modules() if hasattr(m, "parametrizations")]
    assert len(weighted) == 3 + 2 + 1 + 1
    D(G(torch.randn(8, 6))).fun.square().sum().backward()
    assert_trained(G, D)


def test_spectral_norm_of_the_discriminator():
    """Of every layer, one; and that of minibatch discrimination among them."""
    D = discriminator(norm="none", minibatch="discrimination")
    ExactSpectralNorm()(D)
    sigmas = spectral_norms(D)
    assert len(sigmas) == 4
    for name, sigma in sigmas.items():
        assert sigma.item() == pytest.approx(1, abs=1e-4), name


# ---- the class -----------------------------------------------------------------------------------------------------


def test_conditional_batch_norm_reads_the_class_in_every_layer():
    """Each layer alone: exchange two classes' gains and biases there, and only their images are others."""
    G = spread(generator(COLOUR, conditional=True, class_input="batch_norm")).eval()
    z, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    before = G(z, y)
    tables = [(n, p) for n, p in G.named_parameters() if n.endswith(("gain", "bias")) and p.ndim == 2]
    assert len(tables) == 8
    for name, table in tables:
        with torch.no_grad():
            table[2] += 0.3
            changed = (G(z, y) - before).abs().amax((1, 2, 3)) > 1e-4
            assert changed.tolist() == [False, False, True, False], name
            table[2] -= 0.3
    one_class = G(z, torch.full((4,), 2))
    assert (one_class - before).abs().amax((1, 2, 3)).gt(1e-4).tolist() == [True, True, False, True]


def test_conditional_batch_norm_shares_statistics_between_classes():
    """With equal gains, it is the unconditional generator."""
    G, plain = generator(conditional=True, class_input="batch_norm"), generator()
    z, y = torch.randn(6, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    convolutions = [[m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)] for net in (G, plain)]
    with torch.no_grad():
        for name, p in [*G.named_parameters(), *plain.named_parameters()]:
            if p.ndim < 4:
                p.fill_(0.0 if name.endswith("bias") else 1.0)
        for a, b in zip(*convolutions, strict=True):
            b.weight.copy_(a.weight)
    assert_close(G(z, y), plain(z))


@loop_over("name", ["by_class", "biggan"])
def test_standing_statistics_of_conditional_batch_norm(name):
    """Eval mode is training mode's on the batch that they come from."""
    G = spread(generator(**GENERATORS[name]))
    z, y = torch.randn(64, 6), torch.arange(64) % 10
    standing_statistics(G, lambda i: (z, y), passes=1)
    in_training = G(z, y)
    assert_close(G.eval()(z, y), in_training, rtol=0, atol=0.02)


@loop_over(
    ("fields", "reason"),
    [
        ({"norm": "layer"}, "so norm=layer would apply nowhere. Set norm=batch"),
        ({"norm": "virtual"}, "so norm=virtual would apply nowhere"),
        ({"class_input": "shared", "norm": "none"}, "so norm=none would apply nowhere"),
        ({"class_input": "concat", "skip_z": True, "norm": "layer"}, "gains depend on z, so norm=layer would"),
        ({"skip_z": True}, "cannot read z, .* Set class_input=shared, which takes both"),
    ],
)
def test_conditional_batch_norm_that_cannot_be_is_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        DCGANGenerator(**{"class_input": "batch_norm"} | fields)


@loop_over("class_input", ["batch_norm", "shared"])
def test_gains_of_each_class_need_a_generator_that_reads_it(class_input):
    with pytest.raises(ValueError, match=f"class_input={class_input} gives .* this generator reads no class"):
        generator(class_input=class_input)


@loop_over("name", ["concat", "by_class", "virtual_concat", "shared", "skip_z_concat", "biggan"])
def test_a_conditional_generator_needs_labels(name):
    fields = GENERATORS[name]
    with pytest.raises(ValueError, match=r"conditioned on the class: call it with labels, G\(z, y\)"):
        generator(**fields)(torch.randn(2, 6))


# ---- one embedding for all layers, and a chunk of z for each ------------------------------------------------------


def conditioned(G):
    return [m for m in G.modules() if isinstance(m, LinearConditionalBatchNorm)]


def watched(G, z, y):
    """What G's first layer read, and for each conditional norm what it read beside the map, and what it made."""
    first, conditions, made = [], [], []
    hooks = [G.layers[0].register_forward_pre_hook(lambda module, args: first.append(args[0]))]
    for layer in conditioned(G):
        hooks.append(layer.register_forward_pre_hook(lambda module, args: conditions.append(args[1])))
        hooks.append(layer.register_forward_hook(lambda module, args, out: made.append(out)))
    G(z, y)
    for hook in hooks:
        hook.remove()
    return first[0], conditions, made


def test_biggans_generator_is_the_network_written_out():
    """Of 28x28 with z of 6: two numbers for the projection, two for each norm, behind five of the class."""
    G = spread(generator(**BIGGAN)).double()
    z, y = torch.randn(5, 6, dtype=torch.float64), torch.tensor([3, 1, 4, 1, 5])
    p = dict(G.named_parameters())

    def norm(h, i, chunk):
        c = torch.cat([p["embed.weight"][y], chunk], dim=1)
        gain, bias = 1 + c @ p[f"layers.{i}.gain.weight"].T, c @ p[f"layers.{i}.bias.weight"].T
        mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
        return (gain[:, :, None, None] * (h - mean) / (var + 1e-5).sqrt() + bias[:, :, None, None]).relu()

    h = torch.einsum("ni,ifab->nfab", z[:, :2], p["layers.1.weight"])
    h = norm(h, 2, z[:, 2:4])
    h = norm(F.conv_transpose2d(h, p["layers.4.weight"], stride=2, padding=1), 5, z[:, 4:])
    x = F.conv_transpose2d(h, p["layers.7.weight"], p["layers.7.bias"], stride=2, padding=1).tanh()
    assert_close(G(z, y), x)


@loop_over("name", ["biggan", "skip_z", "skip_z_concat"])
@loop_over("resolution", [8, 28, 64])
@loop_over("z_dim", [5, 10, 20, 23])
def test_every_number_of_z_is_used_once(name, resolution, z_dim):
    """In order; each norm reads equally many, and what is left over goes to the first layer."""
    fields = GENERATORS[name]
    G = generator(ImageSpec(resolution, 1, 10), z_dim=z_dim, width=2, **fields)
    z, y = torch.randn(3, z_dim), torch.tensor([1, 2, 3])
    first, conditions, _ = watched(G, z, y)
    chunks = [c[:, 5:] if name == "biggan" else c for c in conditions]
    if name == "skip_z_concat":
        assert torch.equal(first[:, -10:], torch.eye(10)[y])
        first = first[:, :-10]
    assert torch.equal(torch.cat([first, *chunks], dim=1), z)
    layers = {8: 1, 28: 2, 64: 4}[resolution]
    assert [c.shape[1] for c in chunks] == [z_dim // (layers + 1)] * layers
    assert z_dim // (layers + 1) <= first.shape[1] < z_dim // (layers + 1) + layers + 1
    if name == "biggan":
        assert all(torch.equal(c[:, :5], G.embed.weight[y]) for c in conditions)


@loop_over("name", ["biggan", "skip_z"])
def test_a_chunk_of_z_changes_its_own_layer_and_those_after_it(name):
    G = spread(generator(COLOUR, z_dim=10, **GENERATORS[name])).eval()
    z, y = torch.randn(3, 10), torch.tensor([1, 2, 3])
    before = watched(G, z, y)[2]
    for chunk in range(5):
        moved = z.clone()
        moved[0, 2 * chunk] += 1
        changed = [(a - b).abs().amax((1, 2, 3)) > 1e-6 for a, b in zip(watched(G, moved, y)[2], before, strict=True)]
        assert [c[0].item() for c in changed] == [chunk <= layer + 1 for layer in range(4)]
        assert not any(c[1:].any() for c in changed)


@loop_over("name", ["shared", "biggan"])
def test_the_embedding_is_shared(name):
    """One table, which learns from every layer; without skip_z the layers read the class alone, the first all of z."""
    G = generator(COLOUR, z_dim=10, **GENERATORS[name]).double()
    assert [n for n, p in G.named_parameters() if "embed" in n] == ["embed.weight"]
    z, y = torch.randn(6, 10, dtype=torch.float64), torch.tensor([1, 2, 3, 1, 1, 9])
    conditions = []
    for layer in conditioned(G):
        layer.register_forward_pre_hook(lambda module, args: (args[1].retain_grad(), conditions.append(args[1]))[0])
    (G(z, y) * torch.randn(6, 3, 64, 64)).sum().backward()
    assert len(conditions) == 4
    assert {c.shape for c in conditions} == {(6, 5 if name == "shared" else 7)}
    parts = [torch.zeros(10, 5, dtype=torch.float64).index_add(0, y, c.grad[:, :5]) for c in conditions]
    assert all((part[[1, 2, 3, 9]].abs().sum(1) > 0).all() for part in parts)
    assert_close(G.embed.weight.grad, sum(parts))
    assert G.chunks[0] == (10 if name == "shared" else 2)


def test_of_zero_weights_a_conditional_norm_leaves_the_plain_generator():
    """With z in the first layer alone, and no class in it."""
    G, plain = spread(generator(**GENERATORS["shared"])), spread(generator())
    z, y = torch.randn(6, 6), torch.tensor([0, 1, 2, 0, 1, 2])
    convolutions = [[m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)] for net in (G, plain)]
    with torch.no_grad():
        for layer in conditioned(G):
            for linear in (layer.gain, layer.bias):
                linear.weight.zero_()
        for m in plain.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.fill_(1.0)
        for a, b in zip(*convolutions, strict=True):
            b.load_state_dict(a.state_dict())
    assert_close(G(z, y), plain(z))


def test_a_z_too_short_to_be_split_is_refused():
    with pytest.raises(ValueError, match=r"into 5 chunks, .* each of the 4 norms .* z_dim=4 is too short. Set z_dim=5"):
        generator(COLOUR, z_dim=4, skip_z=True)
    generator(COLOUR, z_dim=5, skip_z=True)
    generator(GREY, z_dim=4, skip_z=True)


@loop_over("name", ["batch", "by_class", "shared", "biggan"])
def test_every_batch_norm_may_be_that_of_all_processes(name):
    G = generator(**GENERATORS[name] | {"norm": "sync_batch"})
    norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [type(m) for m in norms] == [SyncBatchNorm] * 2
    plain = generator(**GENERATORS[name] | {"norm": "batch"})
    assert not any(isinstance(m, SyncBatchNorm) for m in plain.modules())
    plain.load_state_dict(G.state_dict())
    z, y = torch.randn(4, 6), torch.arange(4)
    assert torch.equal(G(z, y), plain(z, y))  # one process


# ---- what depends on batch mates ---------------------------------------------------------------------------------


@every_generator
def test_an_image_is_its_own_unless_batch_norm_trains(fields):
    G, y = spread(generator(**fields)), torch.arange(5)
    z = torch.randn(5, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(G(z, y)[0].square().sum(), z)
    mixes = fields.get("norm", "batch") in MIXING
    assert gradient[0].abs().max() > 1e-3
    assert (gradient[1:].abs().max() > 1e-4).item() == mixes
    if not mixes:
        assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))
        assert_close(G(z[:1], y[:1]), G(z, y)[:1], rtol=0, atol=1e-5)


@every_discriminator
def test_the_minibatch_layers_let_d_compare_images(fields):
    D = spread(discriminator(**fields))
    x = torch.rand(8, 1, 28, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(D(x).fun[0].sum(), x)
    compares = "minibatch" in fields or fields["norm"] in MIXING
    assert gradient[0].abs().max() > 1e-3
    assert (gradient[1:].abs().max() > 1e-6).item() == compares
    if not compares:
        assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))


@loop_over("minibatch", ["discrimination", "std"])
def test_a_minibatch_layer_tells_a_collapse_from_a_batch(minibatch):
    """The last features that the head reads, of eight images and of one image eight times."""
    D = spread(discriminator(norm="none", minibatch=minibatch))
    x = torch.randn(8, 1, 28, 28)
    varied, collapsed = D.body(x)[0], D.body(x[:1].expand(8, -1, -1, -1))[0]
    F_plain = 16 * 7 * 7
    assert_close(varied[:F_plain], collapsed[:F_plain])
    if minibatch == "discrimination":
        assert varied.shape == (F_plain + 100,)
        assert_close(collapsed[F_plain:], torch.full((100,), 8.0))
        assert varied[F_plain:].max() < 7.9
    else:
        assert varied.shape == (F_plain + 7 * 7,)
        assert_close(collapsed[F_plain:], torch.full((49,), 1e-4))  # √1e-8
        assert varied[F_plain:].min() > 0.01


# ---- virtual batch norm ------------------------------------------------------------------------------------------


@conditional_or_not
def test_the_reference_is_z_drawn_once_with_classes_beside_it(conditional):
    G = generator(norm="virtual", conditional=conditional)
    ((name, reference),) = G.named_buffers()
    assert name.endswith("reference")
    assert reference.shape == (64, 16 if conditional else 6)
    z = reference[:, :6]
    assert abs(z.mean().item()) < 0.2
    assert z.std().item() == pytest.approx(1, abs=0.15)
    assert len(z.unique(dim=0)) == 64
    if conditional:
        onehot = reference[:, 6:]
        assert torch.equal(onehot.sum(1), torch.ones(64))
        assert set(onehot.sum(0).tolist()) == {6.0, 7.0}  # as evenly as 64 rows are over ten classes


def test_virtual_batch_norm_of_an_image_of_the_reference():
    """There, batch norm over the reference and virtual batch norm nearly agree."""
    G = spread(generator(norm="virtual"))
    plain = copy_in_order(G, generator())
    (reference,) = G.buffers()
    assert_close(G(reference), plain(reference), rtol=0, atol=0.05)
    assert (G(reference) - plain(reference)).abs().max() > 1e-5  # an image counts twice in its own statistics


@conditional_or_not
def test_the_reference_survives_copies_files_and_averages(conditional, tmp_path):
    fields = {"norm": "virtual", "conditional": conditional}
    G, other = spread(generator(**fields)), generator(**fields)
    z, y = torch.randn(3, 6), torch.tensor([1, 2, 3])
    wanted = G(z, y)
    average = EMA(other, halflife_kimg=0)
    average.update(G, 1000, 8)
    torch.save(G.state_dict(), tmp_path / "G.pt")
    other.load_state_dict(torch.load(tmp_path / "G.pt", weights_only=True))
    standing = standing_statistics(copy.deepcopy(G), lambda i: (z, y))
    for same in (other, copy.deepcopy(G), average.model, standing, G.eval()):
        assert torch.equal(same(z, y), wanted)


def test_the_reference_is_not_trained_and_follows_the_weights():
    """Scaling a layer before a norm changes nothing, because the reference is scaled beside the images."""
    G = spread(generator(norm="virtual")).double()
    z = torch.randn(3, 6, dtype=torch.float64)
    before = G(z)
    with torch.no_grad():
        first = next(m for m in G.modules() if isinstance(m, nn.ConvTranspose2d))
        first.weight *= 50
    assert_close(G(z), before, rtol=0, atol=1e-3)
    assert not any("reference" in name for name, _ in G.named_parameters())


def test_virtual_batch_norm_in_the_discriminator_is_refused():
    with pytest.raises(ValueError, match=r"reference batch of real images.*norm=layer.*WithReference\(body, images\)"):
        DCGANDiscriminator(norm="virtual")


# ---- in the trainer ----------------------------------------------------------------------------------------------


def test_none_is_read_on_the_command_line():
    known = components()
    G = parse("DCGANGenerator(norm=none,width=8)", known)
    D = parse("DCGANDiscriminator(norm=none,minibatch=none)", known)
    assert (G.norm, D.norm, D.minibatch) == ("none", "none", "none")
    assert parse(repr(G), known) == G
    with pytest.raises(ValueError, match="norm=virtual needs a reference batch"):
        override(D, {"norm": "virtual"})
    with pytest.raises(ValueError, match=r"DCGANGenerator\.norm"):
        override(G, {"norm": "spectral"})


@pytest.mark.parametrize(
    ("g", "d"),
    [("virtual_concat", "discrimination"), ("by_class", "std"), ("biggan", "sync_batch")],
)
def test_a_run_saves_the_generator_that_it_returns(g, d, tmp_path):
    cfg = recipe()
    fields = dict(GENERATORS[g])
    conditional = fields.pop("conditional", False)
    cfg = replace(
        cfg,
        generator=DCGANGenerator(z_dim=4, width=2, **fields),
        discriminator=DCGANDiscriminator(width=2, **DISCRIMINATORS[d]),
        head=Head(Projection() if conditional else NoConditioning()),
        d_normalizer=NoNormalizer(),
        total_kimg=0.08,
    )
    whole = train(cfg, tmp_path / "whole")
    train(replace(cfg, total_kimg=0.04), tmp_path / "halves")
    halves = train(cfg, tmp_path / "halves")
    saved = Generator.from_pretrained(tmp_path / "whole").net
    z, y = torch.randn(5, 4), torch.arange(5)
    wanted = whole(z, y)
    assert wanted.isfinite().all()
    for net in (halves, saved):
        assert torch.equal(net(z, y), wanted)
        assert_close(net(z[:1], y[:1]), wanted[:1])
