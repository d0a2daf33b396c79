"""The networks on which WGAN-GP was tried: the varied DCGANs and the 101-layer residual networks."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import count, of_g
from torch import nn
from torch.testing import assert_close

from equipoise.config import components, override
from equipoise.core.grammar import parse
from equipoise.core.types import ImageSpec
from equipoise.models import (
    BottleneckDiscriminator,
    BottleneckGenerator,
    Head,
    Hidden,
    Projection,
    VariedDiscriminator,
    VariedGenerator,
)
from equipoise.models.bottleneck import BottleneckBlock
from equipoise.nn import Gate, SmoothELU, SyncBatchNorm, nonlinearity
from equipoise.recipes import load
from equipoise.weights import SpectralNorm, normalizers

COLOUR = ImageSpec(32, channels=3, num_classes=10)
NONLINEARITIES = ["relu", "leaky_relu", "softplus", "tanh", "gated"]
DEPTHS = [4, 8, 12, 20]
FUNCTIONS = {"relu": torch.relu, "leaky_relu": lambda h: torch.where(h > 0, h, 0.2 * h), "tanh": torch.tanh}
every_nonlinearity = pytest.mark.parametrize("kind", NONLINEARITIES)


def generator(config=VariedGenerator, spec=COLOUR, *, conditional=False, **fields):
    return config(**{"z_dim": 6, "width": 4} | fields).build(of_g(spec, conditional))


def discriminator(config=VariedDiscriminator, spec=COLOUR, head=Head(), **fields):  # noqa: B008  (a frozen value)
    return config(**{"width": 4} | fields).build(spec, head.factory(spec.num_classes))


def on_meta(config, resolution):
    with torch.device("meta"):
        spec = ImageSpec(resolution, 3)
        return Head().build(config.build, spec) if "Discriminator" in type(config).__name__ else config.build(spec)


def spread(net):
    """Weights at the scale of one, so that twenty layers of 0.02 leave something to see."""
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 2:
                p.mul_(1.5 / p.flatten(1).norm(dim=1).mean())
    return net


def check_training(G, D, shape):
    """Three images of this shape, and every weight is trained, through the gradient of D too."""
    y = torch.tensor([1, 2, 3])
    x = G(torch.randn(3, 6), y)
    assert x.shape == shape
    logits = D(x, y).fun
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    (logits.square().mean() + slope.square().mean()).backward()
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0 or name.endswith("bias"), name


def weighted(net):
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]


# ---- nonlinearities ---------------------------------------------------------------------------------------------


def test_the_smooth_elu():
    """softplus(2h + 2)/2 - 1, in float64: about h above, -1 below, and between the formula; twice differentiable."""
    h = torch.linspace(-40, 40, 81, dtype=torch.float64, requires_grad=True)
    out = SmoothELU()(h)
    assert_close(out[h.abs() < 15], (torch.log1p(torch.exp(2 * h + 2)) / 2 - 1)[h.abs() < 15])
    assert_close(out[h > 20], h[h > 20])
    assert_close(out[h < -20], torch.full_like(out[h < -20], -1))
    (slope,) = torch.autograd.grad(out.sum(), h, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), h)
    s = torch.sigmoid(2 * h + 2)
    assert_close(slope, s)
    assert_close(second, 2 * s * (1 - s))


def test_the_gate():
    h = torch.randn(2, 6, 3, 3)
    assert_close(Gate()(h), torch.sigmoid(h[:, :3]) * torch.tanh(h[:, 3:]))


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(ValueError, match="unknown nonlinearity 'elu'; known: relu, leaky_relu, softplus"):
        nonlinearity("elu")


# ---- the varied DCGAN -------------------------------------------------------------------------------------------


@loop_over("kind", FUNCTIONS)
def test_the_baseline_is_the_network_written_out(kind):
    """Linear, two transposed 5x5 convolutions with batch norm, and one that ends in tanh; 5x5 convolutions in D."""
    f = FUNCTIONS[kind]
    G, D = spread(generator(nonlinearity=kind)), spread(discriminator(nonlinearity=kind, norm="none"))
    z = torch.randn(5, 6)
    first, *others = weighted(G)
    h = (z @ first.weight.flatten(1)).view(5, 16, 4, 4)  # a transposed convolution of one pixel
    for layer, norm in zip(others, [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)], strict=True):
        h = f(F.batch_norm(h, None, None, norm.weight, norm.bias, training=True))
        h = F.conv_transpose2d(h, layer.weight, layer.bias, stride=2, padding=2, output_padding=1)
    x = G(z)
    assert_close(x, h.tanh())
    assert [m.out_channels for m in weighted(G)] == [16, 8, 4, 3]
    h = x
    for layer in weighted(D.body):
        h = f(F.conv2d(h, layer.weight, layer.bias, stride=2, padding=2))
    assert_close(D(x).fun, h.flatten(1) @ D.head.conditioning.linear.weight.T)
    assert h.shape == (5, 16, 4, 4)


def test_weights_of_the_baseline():
    """DCGANGenerator and DCGANDiscriminator of igul222/improved_wgan_training's gan_64x64.py, at dim 64.

    There all layers have biases: those before a norm are missing here, and D's last one.
    """
    widths = [512, 256, 128, 64]
    convolutions = 25 * sum(a * b for a, b in itertools.pairwise([*widths, 3]))
    G = 129 * 16 * 512 + convolutions + 256 + 128 + 64 + 3 + 2 * sum(widths)
    assert count(on_meta(VariedGenerator(), 64)) == G - 16 * 512 - 256 - 128 - 64
    D = convolutions + sum(widths) + 2 * sum(widths[:-1]) + 4 * 4 * 512 + 1
    assert count(on_meta(VariedDiscriminator(), 64)) == D - (512 + 256 + 128) - 1


@loop_over("depth", DEPTHS)
def test_depth_counts_layers_with_weights(depth):
    """In G with its linear layer, in D with the head; the others keep size and channels, evenly over the maps."""
    G, D = on_meta(VariedGenerator(depth=depth), 32), on_meta(VariedDiscriminator(depth=depth), 32)
    assert len(weighted(G)) == len(weighted(D)) == depth
    for net in (G, D.body):
        keep = [m for m in weighted(net) if isinstance(m, nn.Conv2d) and m.stride == (1, 1)]
        assert len(keep) == depth - 4
        assert all(m.in_channels == m.out_channels for m in keep)
        by_map = [sum(m.in_channels == c for m in keep) for c in (256, 128, 64)]
        assert max(by_map) - min(by_map) <= 1
        assert by_map == sorted(by_map, reverse=True)  # the smallest map, which costs least, first


def test_a_depth_that_is_too_small_is_refused():
    for config, resolution in itertools.product((VariedGenerator(depth=4), VariedDiscriminator(depth=4)), (64, 128)):
        least = {64: 5, 128: 6}[resolution]
        with pytest.raises(ValueError, match=rf"depth=4\) has fewer layers.*needs {least} .*Set depth={least} or more"):
            on_meta(config, resolution)
    assert len(weighted(on_meta(VariedGenerator(), 128))) == 6


def test_a_constant_number_of_filters():
    """As WGAN has it in G (Arjovsky et al. 2017): no norm, w channels in each hidden layer."""
    G = generator(constant=True, norm="none", spec=ImageSpec(64, 3))
    assert [m.out_channels for m in weighted(G)] == [4, 4, 4, 4, 3]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in G.modules())


def test_gated_layers_have_twice_the_channels_inside():
    G, D = generator(nonlinearity="gated", depth=8), discriminator(nonlinearity="gated", norm="batch", depth=8)
    assert [m.in_channels for m in weighted(G)] == [6, 16, 16, 16, 8, 8, 4, 4]
    assert [m.out_channels for m in weighted(G)] == [32, 32, 32, 16, 16, 8, 8, 3]
    gates = [m for m in D.modules() if isinstance(m, Gate)]
    norms = [m.num_features for m in D.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(gates) == len(weighted(D.body)) == 7
    assert norms == [8, 16, 16, 32, 32, 32]  # of what the gate reads, but of the first layer


@loop_over(
    ("g_norm", "d_norm", "layers"),
    [
        ("none", "none", ()),
        ("batch", "batch", (nn.BatchNorm2d, nn.BatchNorm2d)),
        ("sync_batch", "layer", (SyncBatchNorm, nn.GroupNorm)),
    ],
)
def test_neither_output_nor_input_is_normalised(g_norm, d_norm, layers):
    G, D = generator(norm=g_norm, depth=8), discriminator(norm=d_norm, depth=8)
    normed = (nn.BatchNorm2d, nn.GroupNorm)
    found = [[type(m) for m in net.modules() if isinstance(m, normed)] for net in (G, D)]
    assert found == ([[layers[0]] * 7, [layers[1]] * 6] if layers else [[], []])
    assert isinstance(D.body[0], nn.Conv2d)
    assert not isinstance(D.body[1], normed)
    for net in (G, D.body):
        biased = [m.bias is not None for m in weighted(net)]
        assert sum(biased) == (1 if layers else len(biased))  # no bias before a norm


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("depth", DEPTHS)
@every_nonlinearity
def test_every_architecture_of_the_table_is_trained_also_through_a_gradient(kind, depth, conditional):
    """Nonlinearity, depth and norm of both networks in one expression each, as text on the command line too."""
    for g_norm, d_norm in (("batch", "layer"), ("none", "none")):
        text = f"VariedGenerator(z_dim=6,width=2,nonlinearity={kind},depth={depth},norm={g_norm})"
        G = spread(parse(text, components()).build(of_g(COLOUR, conditional)))
        D = spread(discriminator(width=2, nonlinearity=kind, depth=depth, norm=d_norm, head=Head(Projection())))
        check_training(G, D, (3, 3, 32, 32))


# ---- the 101-layer networks -------------------------------------------------------------------------------------


def test_101_layers():
    """Of the longest path through G and through D at 64x64, the linear layer and the head counted."""
    G, D = on_meta(BottleneckGenerator(), 64), on_meta(BottleneckDiscriminator(), 64)
    for net in (G, D):
        blocks = [m for m in net.modules() if isinstance(m, BottleneckBlock)]
        beside = {m for block in blocks for m in weighted(block.shortcut)}
        assert len(weighted(net)) - len(beside) == 101
        assert len(blocks) == 4 * 6 + 5 + 4


def test_weights_of_the_101_layer_networks():
    """ResnetGenerator and ResnetDiscriminator of igul222/improved_wgan_training's gan_64x64.py, at dim 64."""

    def block(c_in, c_out, shortcut):
        inner, outer = c_in // 2, c_out // 2
        return (c_in + 1) * inner + (9 * inner + 1) * outer + outer * c_out + 2 * c_out + (c_in + 1) * shortcut

    def keep(c):
        return block(c, c, 0)

    widths = [512, 256, 128, 64, 32]
    same = 6 * sum(map(keep, widths[:-1])) + 5 * keep(32)
    resized = sum(block(a, b, 4 * b) for a, b in itertools.pairwise(widths))
    G = 129 * 16 * 512 + same + resized + 33 * 3
    assert count(on_meta(BottleneckGenerator(), 64)) == G
    resized = sum(block(b, a, a) for a, b in itertools.pairwise(widths))
    D = 4 * 32 + same + resized + 16 * 512  # and a bias of the last layer there
    assert count(on_meta(BottleneckDiscriminator(), 64)) == D


@loop_over("resize", ["none", "up", "down"])
def test_the_bottleneck_block(resize):
    """ReLU, 1x1, ReLU, 3x3, ReLU, 1x1, norm; three tenths of it beside the shortcut."""
    c_in, c_out = (6, 6) if resize == "none" else (6, 4)
    block = BottleneckBlock(c_in, c_out, "layer", resize).double()
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.randn(2, c_in, 6, 6, dtype=torch.float64)
    one, three, last = block.conv1, block.conv2, block.conv3
    h = F.conv2d(x.clamp_min(0), one.weight, one.bias).clamp_min(0)
    if resize == "up":
        h = F.conv_transpose2d(h, three.weight, three.bias, stride=2, padding=1, output_padding=1)
        wide = F.conv2d(x, block.shortcut[0].weight, block.shortcut[0].bias)  # (2, 4 c_out, 6, 6)
        shortcut = wide.view(2, c_out, 2, 2, 6, 6).permute(0, 1, 4, 2, 5, 3).reshape(2, c_out, 12, 12)
    elif resize == "down":
        h = F.conv2d(h, three.weight, three.bias, stride=2, padding=1)
        shortcut = F.conv2d(x[:, :, ::2, ::2], block.shortcut.weight, block.shortcut.bias)
    else:
        h = F.conv2d(h, three.weight, three.bias, padding=1)
        shortcut = x
    h = F.conv2d(h.clamp_min(0), last.weight)
    mean, var = h.mean((1, 2, 3), keepdim=True), h.var((1, 2, 3), keepdim=True, correction=0)
    h = (h - mean) / (var + 1e-5).sqrt() * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    assert_close(block(x), shortcut + 0.3 * h)
    assert one.out_channels == 3
    assert last.in_channels == c_out // 2


@pytest.mark.parametrize("resolution", [28, 32, 48, 64, 128])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_deep_networks_of_other_sizes(resolution, norm):
    spec = ImageSpec(resolution, 1, 10)
    G = generator(BottleneckGenerator, spec, conditional=True, blocks=2, norm=norm)
    d_norm = "layer" if norm == "batch" else norm
    D = discriminator(BottleneckDiscriminator, spec, Head(Hidden()), blocks=2, norm=d_norm)
    check_training(G, D, (3, 1, resolution, resolution))


# ---- both -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("g", "d"), [(VariedGenerator, VariedDiscriminator), (BottleneckGenerator, BottleneckDiscriminator)]
)
def test_copies_normalisers_and_refusals(g, d):
    G, D = generator(g, conditional=True), discriminator(d, norm="none")
    z, y = torch.randn(4, 6), torch.arange(4)
    x = G(z, y)
    assert not torch.equal(G(z, y), G(z, y.flip(0)))
    SpectralNorm()(D)
    assert all(hasattr(m, "parametrizations") for m in weighted(D))
    D(x)
    wanted = D.eval()(x).fun
    assert_close(copy.deepcopy(D)(x).fun, wanted)
    assert_close(normalizers.remove(D)(x).fun, wanted)
    with pytest.raises(ValueError, match=r"call it with labels, G\(z, y\)"):
        G(z)
    for config in (g(), d()):
        with pytest.raises(ValueError, match="50 is none of these numbers"):
            on_meta(config, 50)


def test_the_recipe_reaches_every_architecture_of_the_table():
    """Each setting is a field of the config of `wgan_gp_varied`."""
    changes = {
        "generator.nonlinearity": "softplus",
        "generator.depth": 20,
        "generator.norm": "none",
        "generator.width": 128,
        "discriminator.nonlinearity": "tanh",
        "discriminator.depth": 12,
        "discriminator.norm": "none",
        "discriminator.width": 32,
    }
    cfg = override(load("wgan_gp_varied")[0], changes)
    assert cfg.generator == VariedGenerator(nonlinearity="softplus", depth=20, norm="none", width=128)
    assert cfg.discriminator == VariedDiscriminator(nonlinearity="tanh", depth=12, norm="none", width=32)
