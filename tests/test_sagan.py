"""SAGAN's networks against the published layer tables, at every size."""

from __future__ import annotations

import copy
import dataclasses
import re

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import assert_trained, count, of_g, open_gates
from torch import nn
from torch.testing import assert_close

from equipoise import recipes
from equipoise.config import override
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import R1, Hinge
from equipoise.models import Head, NoConditioning, Projection, SAGANDiscriminator, SAGANGenerator
from equipoise.nn import ConditionalBatchNorm, SelfAttention, SyncBatchNorm, attention_maps
from equipoise.nn.residual import SIZES
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm, remove

IMAGENET = ImageSpec(128, channels=3, num_classes=1000)
SMALL = ImageSpec(32, channels=3, num_classes=4)


def generator(spec=SMALL, *, conditional=False, **fields):
    torch.manual_seed(0)
    return open_gates(SAGANGenerator(**{"width": 4, "z_dim": 6} | fields).build(of_g(spec, conditional)))


def discriminator(spec=SMALL, head=None, **fields):
    torch.manual_seed(0)
    head = head or Head(Projection())
    return open_gates(head.build(SAGANDiscriminator(**{"width": 4} | fields).build, spec))


def noise(n=3):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(5))


def images(n=3, spec=SMALL):
    g = torch.Generator().manual_seed(6)
    return torch.rand(n, spec.channels, spec.resolution, spec.resolution, generator=g) * 2 - 1


# ---- published sizes -------------------------------------------------------------------------------------------


def test_published_parameter_counts():
    """81.5 M together (Brock et al. 2019, table 1, first row: SAGAN with 64 channels, 1000 classes of ImageNet).

    Of the authors of BigGAN: G 42,017,412 and D 39,448,258 with attention at 64x64; D's includes a bias of its last
    layer, which a head of this library has not.
    """
    with torch.device("meta"):
        G = SAGANGenerator(attention=64).build(IMAGENET)
        D = Head(Projection()).build(SAGANDiscriminator(attention=64).build, IMAGENET)
        at_32 = SAGANGenerator().build(IMAGENET)
    assert count(G) == 42_017_412
    assert count(D) == 39_448_258 - 1
    moved = count(SelfAttention(256)) - count(SelfAttention(128))  # 4w channels there, 2w here
    assert count(at_32) == count(G) + moved


PUBLISHED = [
    (32, [4, 4, 4, 4], [4, 4, 4, 4]),
    (64, [16, 16, 8, 4, 2], [1, 2, 4, 8, 16]),
    (128, [16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16]),
    (256, [16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16]),
    (512, [16, 16, 8, 8, 4, 2, 1, 1], [1, 1, 2, 4, 8, 8, 16, 16]),
]


@loop_over(("resolution", "up", "down"), PUBLISHED, ids=lambda v: v if isinstance(v, int) else "")
def test_channel_tables_and_maps(resolution, up, down):
    """Width 3, what each block is given and makes, and where attention stands: in both networks on the same map."""
    spec = ImageSpec(resolution, channels=3, num_classes=0)
    with torch.device("meta"):
        G = SAGANGenerator(width=3, attention=32).build(spec)
        D = Head().build(SAGANDiscriminator(width=3, attention=32).build, spec)
        shapes = {"G": [], "D": []}
        for player, net in (("G", G), ("D", D.body)):
            for block in net.blocks:
                block.register_forward_hook(
                    lambda module, args, out, player=player: shapes[player].append((type(module), *out.shape[1:3]))
                )
        x = G(torch.randn(2, 128))
        h = D.body(x)
    assert x.shape == (2, 3, resolution, resolution)
    assert h.shape == (2, 3 * down[-1])
    assert G.linear.out_features == 3 * up[0] * 4 * 4
    made = [shape[1:] for shape in shapes["G"] if shape[0] is not SelfAttention]
    assert made == [(3 * c, 8 << i) for i, c in enumerate(up[1:])]
    maps = [resolution >> min(i, 2 if resolution == 32 else 99) for i in range(1, len(down))]
    maps.append(8 if resolution == 32 else 4)
    assert [shape[1:] for shape in shapes["D"] if shape[0] is not SelfAttention] == [
        (3 * c, size) for c, size in zip(down, maps, strict=True)
    ]
    place = 16 if resolution == 32 else 32
    assert [shape[2] for shape in shapes["G"] if shape[0] is SelfAttention] == [place]
    assert [shape[2] for shape in shapes["D"] if shape[0] is SelfAttention] == [place]


@loop_over("resolution", sorted(size for size in SIZES if size <= 56))
@loop_over("channels", [1, 3])
def test_sizes_between(resolution, channels):
    spec = ImageSpec(resolution, channels, num_classes=4)
    x = generator(spec, conditional=True)(noise(), torch.tensor([0, 1, 3]))
    assert x.shape == (3, channels, resolution, resolution)
    assert x.abs().max() <= 1
    D = discriminator(spec)
    assert D(x, torch.tensor([0, 1, 3])).fun.shape == (3, 1)
    assert [m for m in D.modules() if isinstance(m, SelfAttention)]


@loop_over(("resolution", "near"), [(8, "16"), (14, "16"), (30, "28 or data.resolution=32"), (1024, "896")])
def test_other_sizes_are_refused(resolution, near):
    spec = ImageSpec(resolution, 3)
    message = f"SAGAN{{}} doubles or halves .* {resolution} is none of .*data.resolution={near}, or"
    with pytest.raises(ValueError, match=message.format("Generator")):
        SAGANGenerator().build(spec)
    with pytest.raises(ValueError, match=message.format("Discriminator")):
        SAGANDiscriminator().build(spec, Head().factory(0))


def test_where_attention_stands():
    """On the largest hidden map of at most so many pixels, and nowhere if 0."""
    for attention, place in ((0, None), (8, 8), (15, 8), (16, 16), (32, 16), (64, 16)):
        nets = (generator(attention=attention), noise()), (discriminator(attention=attention).body, images())
        for net, inputs in nets:
            sizes = []
            for layer in net.modules():
                if isinstance(layer, SelfAttention):
                    layer.register_forward_hook(lambda module, args, out, sizes=sizes: sizes.append(out.shape[-1]))
            net(inputs)
            assert sizes == ([place] if place else [])
    for build in (generator, discriminator):
        with pytest.raises(ValueError, match=r"\(attention=4\) is below the smallest map .* 8x8. Set attention=8"):
            build(attention=4)


# ---- the layers in their published order -----------------------------------------------------------------------


def conv(layer, h):
    return F.conv2d(h, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def test_the_generator_is_the_published_one():
    """Doubled before the 1x1 shortcut; norm per class by its table: (h - μ)/√(σ² + 1e-5) gain[y] + bias[y]."""
    G, z, y = generator(conditional=True), noise(8), torch.arange(8) % 4
    with torch.no_grad():
        for module in G.modules():
            if isinstance(module, ConditionalBatchNorm):
                module.gain.normal_(1, 0.3)
                module.bias.normal_(0, 0.3)

    def norm(layer, h):
        normed = (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        return layer.gain[y][:, :, None, None] * normed + layer.bias[y][:, :, None, None]

    def twice(h):
        return h.repeat_interleave(2, 2).repeat_interleave(2, 3)

    h = (z @ G.linear.weight.T + G.linear.bias).view(8, -1, 4, 4)
    for block in G.blocks:
        if isinstance(block, SelfAttention):
            h = block(h)
        else:
            r = conv(block.conv1, twice(norm(block.norm1, h).relu()))
            h = conv(block.shortcut, twice(h)) + conv(block.conv2, norm(block.norm2, r).relu())
    last = F.batch_norm(h, None, None, G.last[0].weight, G.last[0].bias, training=True)
    assert_close(G(z, y), conv(G.last[2], last.relu()).tanh(), rtol=1e-4, atol=1e-5)


@loop_over("resolution", [32, 64])
def test_the_discriminator_is_the_published_one(resolution):
    """The first block averages before its shortcut, the others after it; the last halves no map; ReLU, sum, head."""
    spec = dataclasses.replace(SMALL, resolution=resolution)
    D, x, y = discriminator(spec), images(spec=spec), torch.tensor([0, 3, 1])

    def mean(h):
        return h.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))

    h, blocks = x, [b for b in D.body.blocks if not isinstance(b, SelfAttention)]
    halvings = 2 if resolution == 32 else 4
    for block in D.body.blocks:
        if isinstance(block, SelfAttention):
            h = block(h)
            continue
        i = blocks.index(block)
        r = conv(block.conv2, conv(block.conv1, h if i == 0 else h.relu()).relu())
        if i < halvings:
            shortcut = conv(block.shortcut, mean(h)) if i == 0 else mean(conv(block.shortcut, h))
            h = shortcut + mean(r)
        else:
            h = (h if isinstance(block.shortcut, nn.Identity) else conv(block.shortcut, h)) + r
    features = h.relu().sum((2, 3))
    assert_close(D.body(x), features, rtol=1e-4, atol=1e-4)
    w = D.head.conditioning.linear.weight + D.head.conditioning.embed.weight[y]
    assert_close(D(x, y).fun, (w * features).sum(1, keepdim=True), rtol=1e-4, atol=1e-4)
    assert [isinstance(b.shortcut, nn.Identity) for b in blocks] == [
        resolution == 32 and i >= 2 for i in range(len(blocks))
    ]


def test_xavier_weights():
    """U(-a, a), a² = 6 / (fan_in + fan_out): all within, and the mean square a²/3; biases 0."""
    nets = (generator(width=16, conditional=True), discriminator(width=16, head=Head(init_std=0.02)).body)
    for net in nets:
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                w = module.weight.flatten(1)
                area = module.weight[0, 0].numel()
                bound = (6 / (area * (module.weight.shape[0] + module.weight.shape[1]))) ** 0.5
                assert w.abs().max() <= bound
                assert w.square().mean().item() == pytest.approx(bound**2 / 3, rel=4 / w.numel() ** 0.5)
                assert module.bias is None or (module.bias == 0).all()


# ---- what holds of both networks -------------------------------------------------------------------------------


@loop_over("conditional", [False, True])
@loop_over("san", [False, True], ids=["plain", "san"])
def test_every_weight_is_trained(conditional, san):
    G = generator(conditional=conditional)
    D = discriminator(head=Head(Projection() if conditional else NoConditioning(), san=san))
    y = torch.arange(8) % 4
    logits = D(G(noise(8), y), y)
    sum((f * torch.randn_like(f)).sum() for f in (logits.fun, logits.dir) if f is not None).backward()
    assert_trained(G, D)


def test_no_image_mixes_with_others_where_none_may():
    """D, and G in eval mode, see one image at a time; G's norms are torch's, so standing statistics find them."""
    G, D, y = generator(conditional=True).eval(), discriminator(), torch.tensor([0, 1, 2])
    assert_close(G(noise()[:1], y[:1]), G(noise(), y)[:1], rtol=1e-4, atol=1e-5)
    assert_close(D(images()[:1], y[:1]).fun, D(images(), y).fun[:1], rtol=1e-4, atol=1e-5)
    norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2 * 3 + 1
    assert all(not isinstance(m, SyncBatchNorm) for m in norms)
    synced = [m for m in generator(norm="sync_batch").modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(synced) == 7
    assert all(isinstance(m, SyncBatchNorm) for m in synced)


def test_maps_of_both_networks():
    y = torch.tensor([0, 1, 2])
    maps = attention_maps(generator(conditional=True), noise(), y) | attention_maps(discriminator(), images(), y)
    assert list(maps) == ["blocks.2.map", "body.blocks.1.map"]
    for weights in maps.values():
        assert weights.shape == (3, 16 * 16, 8 * 8)
        assert_close(weights.sum(2), torch.ones(3, 256))


def test_bfloat16_agrees():
    G, D, y = generator(conditional=True), discriminator(), torch.arange(8) % 4
    z, x = noise(8), images(8)
    fake, fun = G(z, y), D(x, y).fun
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough_fake, rough_fun = G(z, y), D(x, y).fun
    assert (rough_fake.float() - fake).square().mean().sqrt() < 0.02
    assert_close(rough_fun, fun, rtol=0.05, atol=0.05 * fun.abs().max().item())


def test_copies_and_folding():
    G = generator(conditional=True)
    SpectralNorm()(G)
    y = torch.tensor([0, 1, 2])
    G(noise(), y)
    G.eval()
    copied = copy.deepcopy(G)
    copied.load_state_dict(G.state_dict())
    assert torch.equal(copied(noise(), y), G(noise(), y))
    assert_close(remove(copied)(noise(), y), G(noise(), y))
    assert not [n for n in copied.state_dict() if "parametrizations" in n]


def test_a_conditional_generator_needs_labels():
    with pytest.raises(ValueError, match="call it with labels"):
        generator(conditional=True)(noise())
    G = generator()
    assert torch.equal(G.eval()(noise()), G(noise(), torch.tensor([0, 1, 2])))


# ---- recipes ---------------------------------------------------------------------------------------------------


def test_published_settings():
    """Zhang et al. 2019, secs. 3 and 4."""
    cfg = recipes.load("sagan")[0]
    assert cfg.loss == Hinge()
    assert cfg.head == Head(Projection())
    assert cfg.g_normalizer == cfg.d_normalizer == SpectralNorm()
    assert (cfg.g_optim, cfg.d_optim) == (Adam(lr=1e-4, betas=(0.0, 0.9)), Adam(lr=4e-4, betas=(0.0, 0.9)))
    assert (cfg.d_steps, cfg.batch_size, cfg.total_kimg) == (1, 256, 256_000)
    assert cfg.generator == SAGANGenerator(z_dim=128, width=64, attention=32)
    assert cfg.discriminator == SAGANDiscriminator(width=64, attention=32)
    gan = GAN.build(override(cfg, {"generator.width": 2, "discriminator.width": 2}), SMALL)
    for net in (gan.G, gan.D):
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
        assert all(hasattr(layer, "parametrizations") for layer in layers)


@pytest.mark.parametrize(("name", "resolution"), [("sagan", 64), ("sagan_small", 32), ("sagan_small", 64)])
@pytest.mark.parametrize("san", [False, True], ids=["plain", "san"])
def test_both_steps(name, resolution, san):
    """And R1, which differentiates through attention twice."""
    cfg = override(
        recipes.load(name)[0],
        {"generator.width": 2, "discriminator.width": 2, "head.san": san, "terms": (R1(every=1),)},
    )
    spec = ImageSpec(resolution, channels=1 if resolution == 32 else 3, num_classes=4)
    gan = GAN.build(cfg, spec)
    for net in (gan.G, gan.D):
        open_gates(net)
    batch = Batch(images(4, spec), torch.arange(4))
    before = {n: p.clone() for net in (gan.G, gan.D) for n, p in net.named_parameters()}
    stats = d_step(gan, batch, 0) | g_step(gan, batch, 0)
    assert all(v.isfinite() for v in stats.values())
    assert all(p.isfinite().all() for net in (gan.G, gan.D) for p in net.parameters())
    attention = [n for n in before if re.search("query|key|gamma", n)]
    assert len(attention) == 2 * 3
    after = {n: p for net in (gan.G, gan.D) for n, p in net.named_parameters()}
    assert all(not torch.equal(after[n], before[n]) for n in attention)
