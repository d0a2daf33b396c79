"""Residual networks of SN-GAN and WGAN-GP against the tables of their papers and blocks written out by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import assert_each_moves_its_class, assert_trained, count, of_g
from torch import nn
from torch.testing import assert_close

from equipoise.config import override
from equipoise.core.schedules import at
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import GradientPenalty, Hinge, Wasserstein
from equipoise.models import (
    Head,
    Hidden,
    NoConditioning,
    Projection,
    ResNetCritic,
    ResNetDiscriminator,
    ResNetGenerator,
)
from equipoise.nn import ConditionalBatchNorm, SyncBatchNorm
from equipoise.nn.residual import DownBlock, UpBlock
from equipoise.recipes import load
from equipoise.rules import EMA, Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm, normalizers, spectral_norms, weighted_layers

COLOUR = ImageSpec(64, channels=3, num_classes=10)
SIZES = [28, 32, 48, 64, 128]
GENERATORS = {
    "SN": {},
    "SN32": {"channels": "constant"},
    "GP": {"most": 8},
    "classes": {"conditional": True},
    "sync": {"norm": "sync_batch"},
}
DISCRIMINATORS = {
    "SN": ResNetDiscriminator(width=4),
    "SN32": ResNetDiscriminator(width=4, channels="constant"),
    "GP32": ResNetDiscriminator(width=4, channels="constant", pool="mean"),
    "layer": ResNetDiscriminator(width=4, norm="layer"),
    "GP64": ResNetCritic(width=4),
    "GP64 without norm": ResNetCritic(width=4, norm="none"),
}
every_generator = loop_over("fields", GENERATORS.values(), ids=GENERATORS)
every_discriminator = loop_over("config", DISCRIMINATORS.values(), ids=DISCRIMINATORS)
resolutions = loop_over("resolution", SIZES)


def generator(spec=COLOUR, *, conditional=False, **fields):
    return ResNetGenerator(**{"z_dim": 6, "width": 4} | fields).build(of_g(spec, conditional))


def discriminator(config, spec=COLOUR, head=Head()):  # noqa: B008  (a frozen value)
    return config.build(spec, head.factory(spec.num_classes))


def on_meta(config, resolution, *, classes=0, head=NoConditioning):
    """A whole network of the published width, which takes no memory."""
    spec = ImageSpec(resolution, 3, classes)
    with torch.device("meta"):
        return config.build(spec) if isinstance(config, ResNetGenerator) else Head(head()).build(config.build, spec)


def spread(net):
    """Class gains, biases and norms away from where they start, so that the part of each is seen."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


# ---- blocks, in the order in which the papers' code writes them ----------------------------------------------------


def conv(layer, h):
    return F.conv2d(h, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def doubled(h):
    """Each pixel four times."""
    return h.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halved(h):
    """Mean of the four pixels of each 2x2."""
    return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4


def batch_normalised(h, gain, bias):
    """gain and bias (F,) or, by image, (N, F)."""
    mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
    return (h - mean) / (var + 1e-5).sqrt() * gain[..., None, None] + bias[..., None, None]


def test_the_block_of_the_generator():
    """Norm, ReLU, up, 3x3, norm, ReLU, 3x3; and up, 1x1 beside it (UpsampleConv in WGAN-GP's code)."""
    block = spread(UpBlock(3, 5, nn.BatchNorm2d)).double()
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    h = batch_normalised(x, block.norm1.weight, block.norm1.bias)
    h = conv(block.conv1, doubled(h.clamp_min(0)))
    h = conv(block.conv2, batch_normalised(h, block.norm2.weight, block.norm2.bias).clamp_min(0))
    wanted = h + conv(block.shortcut, doubled(x))
    assert_close(block(x, None), wanted)
    assert wanted.shape == (4, 5, 12, 12)


def test_the_block_of_the_conditional_generator():
    """Each image has its class's gain and bias in both norms, the statistics are those of all."""
    block = spread(UpBlock(3, 5, lambda features: ConditionalBatchNorm(features, 7))).double()
    x, y = torch.randn(4, 3, 6, 6, dtype=torch.float64), torch.tensor([6, 2, 2, 0])
    h = batch_normalised(x, block.norm1.gain[y], block.norm1.bias[y])
    h = conv(block.conv1, doubled(h.clamp_min(0)))
    h = conv(block.conv2, batch_normalised(h, block.norm2.gain[y], block.norm2.bias[y]).clamp_min(0))
    assert_close(block(x, y), h + conv(block.shortcut, doubled(x)))


@loop_over("halve", [True, False], ids=["halve", "keep"])
@loop_over(("c_in", "c_out"), [(3, 5), (3, 3)])
def test_the_block_of_the_discriminator(halve, c_in, c_out):
    """ReLU, 3x3, ReLU, 3x3, mean; 1x1, mean beside it, or nothing where nothing changes."""
    block = spread(DownBlock(c_in, c_out, halve=halve)).double()
    x = torch.randn(4, c_in, 6, 6, dtype=torch.float64)
    h = conv(block.conv2, conv(block.conv1, x.clamp_min(0)).clamp_min(0))
    shortcut = x if not halve and c_in == c_out else conv(block.shortcut, x)
    before = x.clone()
    assert_close(block(x), halved(h) + halved(shortcut) if halve else h + shortcut)
    assert torch.equal(x, before)
    assert block.conv1.out_channels == c_in  # the hidden channels are those that come in


def test_a_norm_comes_before_each_relu_of_a_block_of_the_discriminator():
    block = spread(DownBlock(3, 5, norm="layer")).double()
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)

    def layer(norm, h):
        mean, var = h.mean((1, 2, 3), keepdim=True), h.var((1, 2, 3), keepdim=True, correction=0)
        return (h - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]

    h = conv(block.conv1, layer(block.norm1, x).clamp_min(0))
    h = conv(block.conv2, layer(block.norm2, h).clamp_min(0))
    assert_close(block(x), halved(h) + halved(conv(block.shortcut, x)))
    assert block.conv1.bias is None


def test_the_first_block_of_the_discriminator():
    """3x3, ReLU, 3x3, mean; mean, 1x1 beside it. Pixels are not cut off at 0."""
    block = spread(DownBlock(3, 5, hidden=5, first=True)).double()
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    h = conv(block.conv2, conv(block.conv1, x).clamp_min(0))
    assert_close(block(x), halved(h) + conv(block.shortcut, halved(x)))


# ---- the tables ----------------------------------------------------------------------------------------------------


@loop_over(
    ("config", "resolution", "linear", "outputs"),
    [
        (ResNetGenerator(width=256, channels="constant"), 32, 256, [256, 256, 256]),
        (ResNetGenerator(), 48, 512, [256, 128, 64]),
        (ResNetGenerator(), 64, 1024, [512, 256, 128, 64]),
        (ResNetGenerator(), 128, 1024, [1024, 512, 256, 128, 64]),
        (ResNetGenerator(width=128, channels="constant"), 32, 128, [128, 128, 128]),
        (ResNetGenerator(most=8), 64, 512, [512, 256, 128, 64]),
    ],
    ids=["SN 32", "SN 48", "SN 64", "SN 128", "GP 32", "GP 64"],
)
def test_channels_of_the_generators(config, resolution, linear, outputs):
    """Miyato et al. 2018, app. B.4; pfnet-research/sngan_projection; igul222/improved_wgan_training."""
    G = on_meta(config, resolution)
    first = 6 if resolution == 48 else 4
    assert G.linear.weight.shape == (linear * first**2, 128)
    assert [block.conv1.in_channels for block in G.blocks] == [linear, *outputs[:-1]]
    assert [block.conv1.out_channels for block in G.blocks] == outputs
    assert [block.conv2.out_channels for block in G.blocks] == outputs
    assert G.conv.weight.shape == (3, outputs[-1], 3, 3)


@loop_over(
    ("config", "resolution", "outputs", "maps"),
    [
        (ResNetDiscriminator(width=128, channels="constant"), 32, [128] * 4, [16, 8, 8, 8]),
        (ResNetDiscriminator(), 48, [64, 128, 256, 512, 1024], [24, 12, 6, 3, 3]),
        (ResNetDiscriminator(), 64, [64, 128, 256, 512, 1024], [32, 16, 8, 4, 2]),
        (ResNetDiscriminator(), 128, [64, 128, 256, 512, 1024, 1024], [64, 32, 16, 8, 4, 4]),
        (ResNetDiscriminator(), 28, [64, 128, 256], [14, 7, 7]),
        (ResNetDiscriminator(channels="constant"), 28, [64] * 3, [14, 14, 14]),
        (ResNetCritic(), 64, [128, 256, 512, 512], [32, 16, 8, 4]),
    ],
    ids=["SN 32", "SN 48", "SN 64", "SN 128", "28", "28 constant", "GP 64"],
)
def test_channels_and_maps_of_the_discriminators(config, resolution, outputs, maps):
    D = on_meta(config, resolution)
    blocks = [layer for layer in D.body if isinstance(layer, DownBlock)]
    assert [block.conv2.out_channels for block in blocks] == outputs
    found = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, h: found.append(h.shape[-1]))
    D.body(torch.empty(2, 3, resolution, resolution, device="meta"))
    assert found == maps


def with_norms(features, *, classes=1):
    return 2 * classes * features


def conv_weights(c_in, c_out, kernel=3, bias=True):
    return c_in * c_out * kernel**2 + bias * c_out


def test_weights_of_sngan_32():
    """SNGAN's CIFAR-10 networks: G 4.28 M, D 1.05 M (pfnet-research/sngan_projection: gen_models/resnet_32.py with
    ch=256, dis_models/snresnet_32.py with ch=128, whose layers add up to 4,276,739 and 1,053,824).

    There the first convolution of a block of G has a bias, which the batch norm after it cancels: 3 · 256 more.
    """
    up_block = 2 * conv_weights(256, 256) + conv_weights(256, 256, 1) + 2 * with_norms(256)
    published = 129 * 4 * 4 * 256 + 3 * up_block + with_norms(256) + conv_weights(256, 3)
    assert published == 4_276_739
    assert count(on_meta(ResNetGenerator(width=256, channels="constant"), 32)) == published - 3 * 256
    first = conv_weights(3, 128) + conv_weights(128, 128) + conv_weights(3, 128, 1)
    keep = 2 * conv_weights(128, 128)
    published = first + keep + conv_weights(128, 128, 1) + 2 * keep + 128
    assert published == 1_053_824
    assert count(on_meta(ResNetDiscriminator(width=128, channels="constant"), 32)) == published
    # WGAN-GP's of CIFAR-10 has a bias in the last layer beside it, on which a Wasserstein loss has no gradient.
    assert count(on_meta(ResNetDiscriminator(width=128, channels="constant", pool="mean"), 32)) == published


@loop_over(
    ("resolution", "widths", "G", "D"),
    [
        (48, [512, 256, 128, 64], 4_878_083, 10_141_441),
        (64, [1024, 512, 256, 128, 64], 12_220_675, 10_141_441),
        (128, [1024, 1024, 512, 256, 128, 64], 32_150_787, 29_017_857),
    ],
)
def test_weights_of_sngan_48_to_128(resolution, widths, G, D):
    """The layers of kwotsin/mimicry's nets/sngan (48) and of pfnet-research/sngan_projection (64, 128).

    Those have biases that batch norm cancels, and a bias of D's last layer, which no head here has.
    """
    base = 6 if resolution == 48 else 4
    published = 129 * base**2 * widths[0] + with_norms(64) + conv_weights(64, 3)
    for c_in, c_out in pairwise(widths):
        published += conv_weights(c_in, c_out) + conv_weights(c_out, c_out) + conv_weights(c_in, c_out, 1)
        published += with_norms(c_in) + with_norms(c_out)
    assert published == G
    assert count(on_meta(ResNetGenerator(), resolution)) == G - sum(widths[1:])
    down = [64, 128, 256, 512, 1024, *([1024] if resolution == 128 else [])]
    published = conv_weights(3, 64) + conv_weights(64, 64) + conv_weights(3, 64, 1) + 1024 + 1
    for c_in, c_out in pairwise(down):
        published += conv_weights(c_in, c_in) + conv_weights(c_in, c_out)
        published += conv_weights(c_in, c_out, 1) if c_in != c_out else 0
    assert published == D
    assert count(on_meta(ResNetDiscriminator(), resolution)) == D - 1


def test_weights_of_the_projection_networks():
    """Of 128x128, 1000 classes: a gain and a bias for each class in both norms of a block, and a vector V[y] in D."""
    plain, classes = (on_meta(ResNetGenerator(), 128, classes=c) for c in (0, 1000))
    features = sum(a + b for a, b in [(1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64)])
    assert count(classes) - count(plain) == 999 * 2 * features
    assert type(classes.norm) is nn.BatchNorm2d  # the last one is not conditional
    plain, projection = (
        on_meta(ResNetDiscriminator(), 128, classes=1000, head=h) for h in (NoConditioning, Projection)
    )
    assert count(projection) - count(plain) == 1000 * 1024


def test_weights_of_wgan_gp_64():
    """GoodGenerator and GoodDiscriminator of igul222/improved_wgan_training, dim 64, without the last layer's bias."""
    widths = [512, 512, 256, 128, 64]
    wanted = 129 * 16 * 512 + with_norms(64) + conv_weights(64, 3)
    for a, b in pairwise(widths):
        wanted += conv_weights(a, b, bias=False) + conv_weights(b, b) + conv_weights(a, b, 1)
        wanted += with_norms(a) + with_norms(b)
    assert count(on_meta(ResNetGenerator(most=8), 64)) == wanted == 8_540_483
    widths = [64, 128, 256, 512, 512]
    wanted = conv_weights(3, 64) + 4 * 4 * 512
    for a, b in pairwise(widths):
        wanted += conv_weights(a, a, bias=False) + conv_weights(a, b) + conv_weights(a, b, 1) + 2 * with_norms(a)
    assert count(on_meta(ResNetCritic(), 64)) == wanted == 7_491_840


# ---- whole networks ------------------------------------------------------------------------------------------------


@resolutions
@loop_over("channels", [1, 3])
@loop_over("conditional", [False, True], ids=["", "classes"])
def test_shapes(resolution, channels, conditional):
    spec = ImageSpec(resolution, channels, 10)
    y = torch.tensor([4, 2, 9])
    x = generator(spec, width=2, conditional=conditional)(torch.randn(3, 6), y)
    assert x.shape == (3, channels, resolution, resolution)
    assert x.abs().max() <= 1
    for config in (
        ResNetDiscriminator(width=2),
        ResNetDiscriminator(width=2, channels="constant"),
        ResNetCritic(width=2),
    ):
        for san in (False, True):
            logits = discriminator(config, spec, Head(Projection() if conditional else NoConditioning(), san=san))(x, y)
            assert logits.fun.shape == (3, 1)
            assert (logits.dir is not None) == san


def test_the_generator_ends_in_norm_relu_convolution_and_tanh():
    G = spread(generator()).double()
    z = torch.randn(4, 6, dtype=torch.float64)
    h = (z @ G.linear.weight.T + G.linear.bias).view(4, 64, 4, 4)
    for block in G.blocks:
        h = block(h, None)
    h = batch_normalised(h, G.norm.weight, G.norm.bias).clamp_min(0)
    assert_close(G(z), conv(G.conv, h).tanh())


@every_discriminator
def test_what_the_head_reads(config):
    """Sum or mean of the last map's ReLU; all of the last map, without one, in WGAN-GP's 64x64."""
    D, x = spread(discriminator(config)).double(), torch.randn(4, 3, 64, 64, dtype=torch.float64)
    h = x
    for layer in D.body:
        if isinstance(layer, nn.ReLU | nn.Flatten):
            break
        h = layer(h)
    if isinstance(config, ResNetCritic):
        wanted = h.flatten(1)
        assert (wanted < 0).any()
    else:
        wanted = h.clamp_min(0).sum((2, 3)) / (h[0, 0].numel() if config.pool == "mean" else 1)
    assert_close(D(x).features, wanted)


@every_discriminator
def test_the_class_may_join_the_features(config):
    """Head(Hidden()): beside the pooled vector, or at each position of WGAN-GP's last map."""
    D = discriminator(config, head=Head(Hidden()))
    positions = 16 if isinstance(config, ResNetCritic) else 1
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([3, 1, 4, 1])
    assert D.head.positions == positions
    h = D.body(x).unflatten(1, (-1, positions))
    joined = torch.cat([h, D.head.join.embed(y)[:, :, None].expand(-1, -1, positions)], dim=1)
    join, vector = D.head.join.layer, D.head.last.conditioning.linear.weight
    hidden = F.leaky_relu(torch.einsum("fc,ncp->nfp", join.weight, joined) + join.bias[:, None], 0.2)
    assert_close(D(x, y).fun, hidden.flatten(1) @ vector.T)


@loop_over("config", [ResNetGenerator(), ResNetDiscriminator(), ResNetCritic()])
def test_impossible_sizes_are_refused_with_the_nearest(config):
    with pytest.raises(ValueError, match=r"50 is none of these numbers.*data.resolution=48 or data.resolution=56"):
        on_meta(config, 50)


def test_conditional_batch_norm_starts_as_batch_norm():
    """Gains 1 and biases 0 for all classes (sngan_projection): at first the class does not matter."""
    G, plain = generator(conditional=True), generator()
    z, y = torch.randn(6, 6), torch.arange(6)
    convolutions = [[m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)] for net in (G, plain)]
    with torch.no_grad():
        for a, b in zip(*convolutions, strict=True):
            b.load_state_dict(a.state_dict())
    assert_close(G(z, y), plain(z))
    spread(G)
    assert not torch.allclose(G(z, y), G(z, y.flip(0)), atol=1e-3)


def test_every_block_of_the_generator_reads_the_class():
    G = spread(generator(conditional=True)).eval()
    tables = {n: p for n, p in G.named_parameters() if n.endswith(("gain", "bias")) and p.ndim == 2}
    assert len(tables) == 4 * 2 * 2
    assert_each_moves_its_class(G, tables)


def test_a_conditional_generator_needs_labels():
    with pytest.raises(ValueError, match=r"call it with labels, G\(z, y\)"):
        generator(conditional=True)(torch.randn(2, 6))


# ---- initialisation ------------------------------------------------------------------------------------------------


def test_initial_weights():
    """Uniform, of variance 2 gain² / (fan_in + fan_out): gain² is 2 in the blocks, 1 elsewhere; biases 0, gains 1."""
    nets = generator(width=16, z_dim=100), discriminator(ResNetDiscriminator(width=16)).body
    for net in (*nets, discriminator(ResNetCritic(width=16)).body):
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                w = layer.weight
                kernel = w[0, 0].numel()
                gain = 2 if name.endswith(("conv1", "conv2")) else 1
                std = math.sqrt(2 * gain / (kernel * (w.shape[0] + w.shape[1])))
                assert w.std().item() == pytest.approx(std, rel=4 / w.numel() ** 0.5), name
                assert w.abs().max().item() <= math.sqrt(3) * std, name
                assert layer.bias is None or (layer.bias == 0).all(), name
            elif isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
                assert (layer.weight == 1).all()
                assert (layer.bias == 0).all()


# ---- training ------------------------------------------------------------------------------------------------------


@every_generator
def test_every_weight_of_the_generator_is_trained(fields):
    G = spread(generator(**fields))
    x = G(torch.randn(10, 6), torch.arange(10))
    (x * torch.randn_like(x)).sum().backward()
    assert_trained(G, least=1e-6)


@every_discriminator
def test_every_weight_of_the_discriminator_is_trained_also_through_a_gradient(config):
    D = spread(discriminator(config))
    x = torch.randn(6, 3, 64, 64, requires_grad=True)
    logits = D(x).fun
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    for value, differentiated in ((logits.square().sum(), "all"), (slope.square().sum(), "weights")):
        D.zero_grad()
        value.backward(retain_graph=True)
        for name, p in D.named_parameters():
            if differentiated == "weights" and name.endswith("bias"):  # a ReLU has no second derivative
                continue
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().sum() > 1e-6, name


@every_discriminator
def test_an_image_of_the_discriminator_is_its_own(config):
    x = torch.randn(4, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(spread(discriminator(config))(x).fun[0].sum(), x)
    assert gradient[0].abs().max() > 1e-3
    assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))


@every_discriminator
@loop_over("san", [False, True], ids=["plain", "san"])
def test_spectral_norm_reaches_every_layer(config, san):
    D = discriminator(config, head=Head(Projection(), san=san))
    SpectralNorm()(D)
    x, y = torch.randn(4, 3, 64, 64), torch.arange(4)
    for _ in range(30):
        D(x[:1], y[:1])
    for name, sigma in spectral_norms(D).items():
        assert sigma.item() == pytest.approx(1, abs=0.05), name
    layers = [m for m in D.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(list(weighted_layers(D))) == len(layers) - (2 if san else 0)
    wanted = D.eval()(x, y).fun
    assert_close(copy.deepcopy(D)(x, y).fun, wanted)
    assert_close(normalizers.remove(copy.deepcopy(D))(x, y).fun, wanted)


@every_generator
def test_copies_averages_and_files_of_the_generator(fields, tmp_path):
    G, other = spread(generator(**fields)), generator(**fields)
    z, y = torch.randn(4, 6), torch.arange(4)
    G(z, y)
    average = EMA(other, halflife_kimg=0)
    average.update(G, 1000, 8)
    torch.save(G.state_dict(), tmp_path / "G.pt")
    other.load_state_dict(torch.load(tmp_path / "G.pt", weights_only=True))
    wanted = G.eval()(z, y)
    for same in (other, copy.deepcopy(G), average.model):
        assert torch.equal(same.eval()(z, y), wanted)


def test_every_batch_norm_may_be_that_of_all_processes():
    for conditional in (False, True):
        G = generator(norm="sync_batch", conditional=conditional)
        norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
        assert [type(m) for m in norms] == [SyncBatchNorm] * 9


@pytest.mark.parametrize(
    "config", [ResNetDiscriminator(width=8), ResNetCritic(width=8)], ids=lambda c: type(c).__name__
)
def test_bfloat16_agrees_with_float32(config):
    G, D = generator(width=8), discriminator(config)
    z = torch.randn(8, 6)
    x = G(z)
    fun = D(x).fun
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(G(z).float(), x, rtol=0, atol=0.1)
        low = D(x).fun
    assert low.dtype == torch.float32  # the last inner product
    assert_close(low, fun, rtol=0.05, atol=0.05 * fun.abs().max().item())


# ---- recipes -------------------------------------------------------------------------------------------------------

RECIPES = {
    "sngan_cnn": {},
    "sngan_resnet": {},
    "sngan_projection": {},
    "sngan_resnet_small": {},
    "wgan_gp_resnet": {},
    "wgan_gp_resnet64": {},
    "wgan_gp_varied": {},
    "wgan_gp_101": {"generator.blocks": 1, "discriminator.blocks": 1},
}


def narrow(name, **changes):
    return override(load(name)[0], {"generator.width": 2, "discriminator.width": 2} | RECIPES[name] | changes)


@loop_over("name", RECIPES)
@loop_over("san", [False, True], ids=["plain", "san"])
@loop_over("resolution", [32, 64])
def test_both_steps_of_the_recipes(name, san, resolution):
    cfg = narrow(name, **{"head.san": san})
    gan = GAN.build(cfg, ImageSpec(resolution, 3, 10))
    real = Batch(torch.rand(4, 3, resolution, resolution) * 2 - 1, torch.arange(4))
    for step, net in ((d_step, gan.D), (g_step, gan.G)):
        before = [p.detach().clone() for p in net.parameters()]
        stats = step(gan, real, 0)
        assert all(value.isfinite() for value in stats.values()), stats
        assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_the_numbers_of_the_papers():
    """SN-GAN, sec. 4, app. B.4 and the authors' configurations; WGAN-GP, app. B, E, F and the authors' code."""
    for name in ("sngan_resnet", "sngan_projection", "sngan_resnet_small"):
        cfg = load(name)[0]
        assert (cfg.loss, cfg.d_normalizer) == (Hinge(), SpectralNorm())
        assert (cfg.batch_size, cfg.generator.z_dim) == (64, 128)
        assert cfg.g_optim.betas == cfg.d_optim.betas == (0.0, 0.9)
        assert at(cfg.g_optim.lr, 0) == 2e-4
    for name in ("wgan_gp_resnet", "wgan_gp_resnet64", "wgan_gp_varied", "wgan_gp_101"):
        cfg = load(name)[0]
        assert (cfg.loss, cfg.terms) == (Wasserstein(), (GradientPenalty(strength=10, target=1),))
        assert (cfg.batch_size, cfg.generator.z_dim, cfg.d_steps) == (64, 128, 5)
        assert replace(cfg.d_optim, weight_decay=0.0) == cfg.g_optim
        assert cfg.d_normalizer == normalizers.NoNormalizer()
        assert cfg.d_optim.weight_decay == (1e-3 if name == "wgan_gp_varied" else 0)
    assert load("wgan_gp_101")[0].d_optim == Adam(lr=1e-4, betas=(0.5, 0.9))
    assert load("wgan_gp_varied")[0].g_optim == load("wgan_gp_resnet64")[0].g_optim == Adam(lr=1e-4, betas=(0.0, 0.9))
    for name, updates in (("sngan_resnet", 50_000), ("wgan_gp_resnet", 100_000)):
        cfg = load(name)[0]
        images = updates * 5 * 64
        assert cfg.total_kimg * 1000 == images
        for optim in (cfg.g_optim, cfg.d_optim):
            assert at(optim.lr, images // 2) == pytest.approx(1e-4)
            assert at(optim.lr, images) == 0
    cfg, images = load("sngan_projection")[0], 5 * 64
    assert cfg.total_kimg * 1000 == 450_000 * images
    for optim in (cfg.g_optim, cfg.d_optim):
        lr = [at(optim.lr, updates * images) for updates in (0, 400_000, 425_000, 450_000)]
        assert lr == pytest.approx([2e-4, 2e-4, 1e-4, 0])
    twice = {name for name in RECIPES if load(name)[0].g_batches == 2}
    assert twice == {"sngan_resnet", "sngan_projection", "wgan_gp_resnet"}
    noisy = {name for name in RECIPES if load(name)[0].dequantise == 1 / 128}
    assert noisy == {"sngan_projection", "wgan_gp_resnet"}  # datasets/imagenet.py; gan_cifar_resnet.py
    assert all(load(name)[0].dequantise == 0 for name in {*RECIPES} - noisy)
    cnn = load("sngan_cnn")[0]
    assert cnn.d_optim == cnn.g_optim == Adam(lr=2e-4, betas=(0.5, 0.999))
    assert cnn.d_steps == 1
