"""BigGAN's and BigGAN-deep's networks against the published tables, counts and layer order, at every size."""

from __future__ import annotations

import copy
import math
import re
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import assert_trained, count, of_g, open_gates
from torch import nn
from torch.testing import assert_close

from equipoise import recipes
from equipoise.config import override
from equipoise.core.grammar import differences
from equipoise.core.latents import truncate
from equipoise.core.types import Batch, ImageSpec
from equipoise.generate import standing_statistics
from equipoise.losses import R1, Hinge, Orthogonal
from equipoise.models import (
    BigGANDeepDiscriminator,
    BigGANDeepGenerator,
    BigGANDiscriminator,
    BigGANGenerator,
    Head,
    NoConditioning,
    Projection,
)
from equipoise.nn import LinearConditionalBatchNorm, SelfAttention, SyncBatchNorm, attention_maps
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm, remove

SMALL = ImageSpec(32, channels=3, num_classes=4)
GENERATORS = (BigGANGenerator, BigGANDeepGenerator)
DISCRIMINATORS = (BigGANDiscriminator, BigGANDeepDiscriminator)

every_generator = loop_over("config", GENERATORS, ids=["biggan", "deep"])
every_discriminator = loop_over("config", DISCRIMINATORS, ids=["biggan", "deep"])


def generator(config=BigGANGenerator, spec=SMALL, *, conditional=False, **fields):
    torch.manual_seed(0)
    return open_gates(config(**{"width": 4, "z_dim": 9, "embed": 3} | fields).build(of_g(spec, conditional)))


def discriminator(config=BigGANDiscriminator, spec=SMALL, head=None, **fields):
    torch.manual_seed(0)
    return open_gates((head or Head(Projection())).build(config(**{"width": 4} | fields).build, spec))


def noise(n=3):
    return torch.randn(n, 9, generator=torch.Generator().manual_seed(5))


def images(n=3, spec=SMALL):
    g = torch.Generator().manual_seed(6)
    return torch.rand(n, spec.channels, spec.resolution, spec.resolution, generator=g) * 2 - 1


# ---- published counts and tables -------------------------------------------------------------------------------


def on_meta(generator, discriminator, resolution, **fields):
    spec = ImageSpec(resolution, channels=3, num_classes=1000)
    with torch.device("meta"):
        return generator(**fields).build(spec), Head(Projection()).build(discriminator().build, spec)


def test_published_parameter_counts():
    """158.3 M at 128x128, of which the class embedding is 0.13 M more (Brock et al. 2019, table 1).

    The authors count G 70,305,988 without its class embedding, and D 87,982,370; compare_gan, of the same laboratory,
    70,433,988 with it, and 87,982,370. D's includes a bias of its last layer, which a head of this library has not.
    """
    G, D = on_meta(*(GENERATORS[0], DISCRIMINATORS[0]), 128)
    assert G.embed.weight.numel() == 128_000
    assert count(G) == 70_305_988 + 128_000 == 70_433_988
    assert count(D) == 87_982_370 - 1
    assert count(G) - 128_000 + count(D) == pytest.approx(158.3e6, abs=0.05e6)


@loop_over(("resolution", "millions"), [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_published_parameter_counts_of_the_deep_generator(resolution, millions):
    """Of the released weights. Their last convolution makes w = 128 channels, of which three are the image."""
    G, D = on_meta(*(GENERATORS[1], DISCRIMINATORS[1]), resolution)
    unused = (128 - 3) * (128 * 3 * 3 + 1)
    assert count(G) + unused == pytest.approx(millions * 1e6, abs=0.05e6)
    if resolution == 128:  # the two together, table 1's last row
        assert count(G) + count(D) == pytest.approx(85e6, rel=0.005)


TABLES = {
    32: ([4, 4, 4, 4], [4, 4, 4, 4]),
    64: ([16, 16, 8, 4, 2], [1, 2, 4, 8, 16]),
    128: ([16, 16, 8, 4, 2, 1], [1, 2, 4, 8, 16, 16]),
    256: ([16, 16, 8, 8, 4, 2, 1], [1, 2, 4, 8, 8, 16, 16]),
    512: ([16, 16, 8, 8, 4, 2, 1, 1], [1, 1, 2, 4, 8, 8, 16, 16]),
}


def shapes(net, call):
    """(kind, channels, pixels) of what each block makes."""
    made = []
    for block in net.blocks:
        block.register_forward_hook(lambda module, args, out: made.append((type(module).__name__, *out.shape[1:3])))
    call()
    return made


@loop_over("resolution", TABLES)
def test_blocks_of_biggan(resolution):
    """Width 4; the shapes after each block (app. B, tables 4 to 6; for 64 and 32 the authors' code)."""
    up, down = TABLES[resolution]
    G, D = on_meta(BigGANGenerator, BigGANDiscriminator, resolution)
    with torch.device("meta"):
        made = shapes(G, lambda: G(torch.randn(2, 120), torch.zeros(2, dtype=torch.int64)))
        seen = shapes(D.body, lambda: D.body(torch.randn(2, 3, resolution, resolution)))
    place = min(64, resolution // 2)
    assert [b for b in made if b[0] == "UpBlock"] == [("UpBlock", 96 * c, 8 << i) for i, c in enumerate(up[1:])]
    halvings = 2 if resolution == 32 else len(down) - 1
    assert [b for b in seen if b[0] == "DownBlock"] == [
        ("DownBlock", 96 * c, resolution >> min(i + 1, halvings)) for i, c in enumerate(down)
    ]
    assert [b[2] for b in made if b[0] == "SelfAttention"] == [place]
    assert [b[2] for b in seen if b[0] == "SelfAttention"] == [place]


@loop_over("resolution", TABLES)
def test_blocks_of_biggan_deep(resolution):
    """Two blocks a map, 1x1 layers around a quarter of the channels (app. B, tables 7 to 9)."""
    up, down = TABLES[resolution]
    G, D = on_meta(BigGANDeepGenerator, BigGANDeepDiscriminator, resolution)
    with torch.device("meta"):
        made = shapes(G, lambda: G(torch.randn(2, 128), torch.zeros(2, dtype=torch.int64)))
        seen = shapes(D.body, lambda: D.body(torch.randn(2, 3, resolution, resolution)))
    wanted = []
    for i, (c_in, c_out) in enumerate(pairwise(up)):
        wanted += [("DeepUpBlock", 128 * c_in, 4 << i), ("DeepUpBlock", 128 * c_out, 8 << i)]
    assert [b for b in made if b[0] == "DeepUpBlock"] == wanted
    halvings = 2 if resolution == 32 else len(down) - 1
    wanted = [("DeepDownBlock", 128 * c, resolution >> min(i, halvings)) for i, c in enumerate(down) for _ in (0, 1)]
    assert [b for b in seen if b[0] == "DeepDownBlock"] == wanted[2:]
    assert seen[0] == ("Conv2d", 128 * down[0], resolution)
    place = min(64, resolution // 2)
    for blocks, kind in ((made, "DeepUpBlock"), (seen, "DeepDownBlock")):
        i = [b[0] for b in blocks].index("SelfAttention")
        assert blocks[i][2] == blocks[i - 1][2] == place
        assert [b[0] for b in blocks].count("SelfAttention") == 1
        after = next(b for b in blocks[i + 1 :] if b[0] == kind)
        assert (after[2] == place) == (kind == "DeepUpBlock")  # between the blocks of two maps
    for block in (*G.blocks, *D.body.blocks):
        if hasattr(block, "convs"):
            inner = max(block.convs[0].in_channels, block.convs[3].out_channels) // 4
            assert [c.kernel_size[0] for c in block.convs] == [1, 3, 3, 1]
            assert block.convs[1].in_channels == block.convs[2].out_channels == inner


@every_generator
def test_sizes_and_channels_between(config):
    discriminator_config = DISCRIMINATORS[GENERATORS.index(config)]
    y = torch.tensor([0, 1, 3])
    for resolution, channels in ((16, 1), (20, 3), (28, 1), (48, 3)):
        spec = ImageSpec(resolution, channels, num_classes=4)
        x = generator(config, spec, conditional=True)(noise(), y)
        assert x.shape == (3, channels, resolution, resolution)
        assert discriminator(discriminator_config, spec)(x, y).fun.shape == (3, 1)
    for build in (generator, lambda c, spec: discriminator(discriminator_config, spec)):
        with pytest.raises(ValueError, match="Deep.* 100 is none" if "Deep" in config.__name__ else " 100 is none"):
            build(config, ImageSpec(100, 3, 4))


# ---- what z and the class reach --------------------------------------------------------------------------------


@loop_over("z_dim", [120, 123])
def test_z_is_split_as_published(z_dim):
    """At 128: six times 20, for the linear layer and five blocks. What is left over goes to the linear layer."""
    spec = ImageSpec(128, 3, num_classes=1000)
    with torch.device("meta"):
        G = BigGANGenerator(z_dim=z_dim).build(spec)
    assert G.linear.in_features == z_dim - 100
    norms = [m for m in G.modules() if isinstance(m, LinearConditionalBatchNorm)]
    assert len(norms) == 10
    assert {m.gain.in_features for m in norms} == {128 + 20}
    with pytest.raises(ValueError, match="z_dim=5 is too short"):
        BigGANGenerator(z_dim=5).build(spec)


def first_changed(G, z, other, y, other_y=None):
    """The first block whose output differs, counted without attention; -1 for the linear layer."""
    seen = []
    blocks = [b for b in G.blocks if not isinstance(b, SelfAttention)]
    hooks = [b.register_forward_hook(lambda module, args, out: seen.append(out)) for b in (G.linear, *blocks)]
    G(z, y)
    G(other, y if other_y is None else other_y)
    for hook in hooks:
        hook.remove()
    half = len(seen) // 2
    return next(i for i in range(half) if not torch.equal(seen[i], seen[half + i])) - 1


def test_each_chunk_enters_its_block():
    G, y = generator(z_dim=9, conditional=True).eval(), torch.tensor([0, 1, 2])
    assert G.chunks == [3, 2, 2, 2]
    starts = [0, 3, 5, 7]
    for block, start in enumerate(starts):
        moved = noise()
        moved[:, start] += 1
        assert first_changed(G, noise(), moved, y) == block - 1
    assert first_changed(G, noise(), noise(), y, y.flip(0)) == 0  # the class, from the first block on
    alone = generator(z_dim=9, conditional=True, skip_z=False).eval()
    assert alone.linear.in_features == 9
    moved = noise()
    moved[:, 8] += 1
    assert first_changed(alone, noise(), moved, y) == -1
    norms = [m for m in alone.modules() if isinstance(m, LinearConditionalBatchNorm)]
    assert {m.gain.in_features for m in norms} == {3}


def test_one_embedding_for_all():
    """Its gradient is the sum over all norms; the deep one has it, and all of z, in the linear layer too."""
    for config in GENERATORS:
        G = generator(config, conditional=True)
        assert [n for n, m in G.named_modules() if isinstance(m, nn.Embedding)] == ["embed"]
    deep = generator(BigGANDeepGenerator, conditional=True).eval()
    assert deep.linear.in_features == 9 + 3
    assert {m.gain.in_features for m in deep.modules() if isinstance(m, LinearConditionalBatchNorm)} == {9 + 3}
    moved = noise()
    moved[:, 8] += 1
    y = torch.tensor([0, 1, 2])
    assert first_changed(deep, noise(), moved, y) == -1
    assert first_changed(deep, noise(), noise(), y, y.flip(0)) == -1


@every_generator
def test_without_classes(config):
    """z alone, or plain batch norm where neither enters; labels are ignored."""
    G = generator(config).eval()
    assert G.embed is None
    assert torch.equal(G(noise()), G(noise(), torch.tensor([0, 1, 2])))
    if config is BigGANGenerator:
        plain = generator(skip_z=False)
        assert not [m for m in plain.modules() if isinstance(m, LinearConditionalBatchNorm)]
        assert plain(noise()).shape == (3, 3, 32, 32)
    with pytest.raises(ValueError, match="call it with labels"):
        generator(config, conditional=True)(noise())


# ---- the layers in their published order -----------------------------------------------------------------------


def conv(layer, h):
    return F.conv2d(h, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


def norm(layer, h, c):
    normed = (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    gain, bias = 1 + c @ layer.gain.weight.T, c @ layer.bias.weight.T
    return gain[:, :, None, None] * normed + bias[:, :, None, None]


def twice(h):
    return h.repeat_interleave(2, 2).repeat_interleave(2, 3)


def mean(h):
    return h.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))


def image(G, h):
    last = F.batch_norm(h, None, None, G.last[0].weight, G.last[0].bias, training=True)
    return conv(G.last[2], last.relu()).tanh()


def test_the_generator_is_the_published_one():
    G, z, y = generator(conditional=True), noise(8), torch.arange(8) % 4
    h = (z[:, :3] @ G.linear.weight.T + G.linear.bias).view(8, -1, 4, 4)
    i = 0
    for block in G.blocks:
        if isinstance(block, SelfAttention):
            h = block(h)
            continue
        c = torch.cat([G.embed.weight[y], z[:, 3 + 2 * i : 5 + 2 * i]], dim=1)
        r = conv(block.conv1, twice(norm(block.norm1, h, c).relu()))
        h = conv(block.shortcut, twice(h)) + conv(block.conv2, norm(block.norm2, r, c).relu())
        i += 1
    assert i == 3
    assert_close(G(z, y), image(G, h), rtol=1e-4, atol=1e-5)


@loop_over("resolution", [32, 64])
def test_the_deep_generator_is_the_published_one(resolution):
    """Bottleneck blocks; the shortcut keeps the first channels, and doubles."""
    G, z, y = (
        generator(BigGANDeepGenerator, ImageSpec(resolution, 3, 4), conditional=True),
        noise(8),
        torch.arange(8) % 4,
    )
    c = torch.cat([G.embed.weight[y], z], dim=1)
    h = (c @ G.linear.weight.T + G.linear.bias).view(8, -1, 4, 4)
    ups = 0
    for block in G.blocks:
        if isinstance(block, SelfAttention):
            h = block(h)
            continue
        double = ups % 2 == 1
        r = conv(block.convs[0], norm(block.norms[0], h, c).relu())
        r = norm(block.norms[1], r, c).relu()
        r = conv(block.convs[1], twice(r) if double else r)
        r = conv(block.convs[2], norm(block.norms[2], r, c).relu())
        r = conv(block.convs[3], norm(block.norms[3], r, c).relu())
        h = h[:, : r.shape[1]]
        h = (twice(h) if double else h) + r
        ups += 1
    assert_close(G(z, y), image(G, h), rtol=1e-4, atol=1e-5)


@loop_over("resolution", [32, 64])
def test_the_deep_discriminator_is_the_published_one(resolution):
    """No ReLU before the image's convolution; means before the last 1x1 and in the shortcut, which appends channels."""
    spec = ImageSpec(resolution, 3, 4)
    D, x = discriminator(BigGANDeepDiscriminator, spec), images(spec=spec)
    h, downs = conv(D.body.blocks[0], x), 0
    for block in D.body.blocks[1:]:
        if isinstance(block, SelfAttention):
            h = block(h)
            continue
        halve = downs % 2 == 0 and downs < 2 * (2 if resolution == 32 else 4)
        r = conv(block.convs[0], h.relu())
        r = conv(block.convs[1], r.relu())
        r = conv(block.convs[2], r.relu()).relu()
        r = conv(block.convs[3], mean(r) if halve else r)
        h = mean(h) if halve else h
        more = r.shape[1] - h.shape[1]
        h = (torch.cat([h, conv(block.more, h)], dim=1) if more else h) + r
        downs += 1
    assert_close(D.body(x), h.relu().sum((2, 3)), rtol=1e-4, atol=1e-4)


@every_generator
def test_orthogonal_weights(config):
    """W Wᵀ = I or Wᵀ W = I for each weight as (out, the rest), the embedding's too; biases 0."""
    nets = (
        generator(config, conditional=True),
        discriminator(DISCRIMINATORS[GENERATORS.index(config)], head=Head(init_std=0.02)).body,
    )
    for net in nets:
        found = 0
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                w = module.weight.flatten(1)
                products = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
                assert_close(products, torch.eye(len(products)), rtol=0, atol=1e-5, msg=name)
                assert getattr(module, "bias", None) is None or (module.bias == 0).all()
                found += 1
        assert found > 8


# ---- what holds of all four ------------------------------------------------------------------------------------


@every_generator
@loop_over("conditional", [False, True])
@loop_over("san", [False, True], ids=["plain", "san"])
def test_every_weight_is_trained(config, conditional, san):
    G = generator(config, conditional=conditional)
    head = Head(Projection() if conditional else NoConditioning(), san=san)
    D = discriminator(DISCRIMINATORS[GENERATORS.index(config)], head=head)
    y = torch.arange(8) % 4
    logits = D(G(noise(8), y), y)
    sum((f * torch.randn_like(f)).sum() for f in (logits.fun, logits.dir) if f is not None).backward()
    assert_trained(G, D)


@every_generator
def test_standing_statistics_and_truncation(config):
    """Every norm is found; then an image is its own, whatever its batch, and z may be truncated."""
    G, y = generator(config, conditional=True), torch.tensor([0, 1, 2])
    norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (7 if config is BigGANGenerator else 25)
    standing_statistics(G.eval(), lambda i: (torch.randn(8, 9), torch.arange(8) % 4), passes=4)
    assert all(m.running_mean.abs().sum() > 0 for m in norms)
    z = truncate(noise(), 0.5)
    assert_close(G(z[:1], y[:1]), G(z, y)[:1], rtol=1e-4, atol=1e-5)
    for synced in generator(config, norm="sync_batch").modules():
        assert not isinstance(synced, nn.BatchNorm2d) or isinstance(synced, SyncBatchNorm)


@every_generator
def test_bfloat16_copies_folding_and_maps(config):
    G, y = generator(config, conditional=True), torch.arange(8) % 4
    SpectralNorm(skip=("embed",))(G)
    assert not hasattr(G.embed, "parametrizations")
    G(noise(8), y)
    G.eval()
    x = G(noise(8), y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = G(noise(8), y)
    assert (rough.float() - x).square().mean().sqrt() < 0.03
    copied = copy.deepcopy(G)
    assert_close(remove(copied)(noise(8), y), x)
    (weights,) = attention_maps(G, noise(8), y).values()
    assert weights.shape == (8, 256, 64)


@every_discriminator
def test_bfloat16_agrees_in_d(config):
    D, x, y = discriminator(config), images(), torch.tensor([0, 1, 2])
    fun = D(x, y).fun
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = D(x, y).fun
    assert_close(rough, fun, rtol=0.05, atol=0.05 * fun.abs().max().item())


# ---- recipes ---------------------------------------------------------------------------------------------------


def test_published_settings():
    """Brock et al. 2019, app. C, for 128x128."""
    cfg, deep = (recipes.load(name)[0] for name in ("biggan", "biggan_deep"))
    assert cfg.loss == Hinge()
    assert cfg.head == Head(Projection())
    assert (cfg.g_normalizer, cfg.d_normalizer) == (SpectralNorm(skip=("embed",)), SpectralNorm())
    assert (cfg.g_optim, cfg.d_optim) == (Adam(lr=5e-5, betas=(0.0, 0.999)), Adam(lr=2e-4, betas=(0.0, 0.999)))
    assert (cfg.d_steps, cfg.batch_size, cfg.terms) == (2, 2048, (Orthogonal(strength=1e-4, player="G"),))
    assert cfg.generator == BigGANGenerator(z_dim=120, width=96, embed=128, norm="sync_batch")
    assert cfg.discriminator == BigGANDiscriminator(width=96)
    changed = {line.partition(":")[0] for line in differences(cfg, deep)}
    assert changed == {"generator", "discriminator"}
    cifar = recipes.load("biggan_cifar")[0]
    assert cifar.g_optim == cifar.d_optim == Adam(lr=2e-4, betas=(0.0, 0.999))
    assert (cifar.d_steps, cifar.batch_size, cifar.terms, cifar.total_kimg) == (4, 50, (), 25_000)
    assert (cifar.generator.attention, cifar.discriminator.attention) == (0, 0)


@loop_over("name", ["biggan", "biggan_cifar"])
def test_the_average_keeps_9999_ten_thousandths(name):
    """Per update of G, for which D has seen d_steps batches; once the ramp is over."""
    cfg = recipes.load(name)[0]
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    ema = cfg.ema.build(net)
    nn.init.zeros_(net.weight)
    ema.update(net, round(cfg.total_kimg * 1000), cfg.batch_size * cfg.d_steps)
    assert ema.model.weight.item() == pytest.approx(0.9999, abs=1e-6)
    assert math.isclose(cfg.ema.halflife_kimg, cfg.batch_size * cfg.d_steps * math.log(2) / 0.1, rel_tol=1e-3)


@loop_over(
    ("name", "resolution"),
    [("biggan", 64), ("biggan_cifar", 32), ("biggan_deep", 32), ("biggan_small", 32), ("biggan_small", 64)],
)
@loop_over("san", [False, True], ids=["plain", "san"])
def test_both_steps(name, resolution, san):
    """And R1, which differentiates through attention twice."""
    cfg = override(
        recipes.load(name)[0],
        {"generator.width": 2, "discriminator.width": 2, "head.san": san, "terms": (R1(every=1),), "batch_size": 4},
    )
    spec = ImageSpec(resolution, channels=1 if resolution == 32 else 3, num_classes=4)
    gan = GAN.build(cfg, spec)
    for net in (gan.G, gan.D):
        open_gates(net)
    batch = Batch(images(4, spec), torch.arange(4))
    before = {n: p.clone() for net in (gan.G, gan.D) for n, p in net.named_parameters()}
    stats = d_step(gan, batch, 0) | g_step(gan, batch, 0)
    assert all(v.isfinite() for v in stats.values())
    after = {n: p for net in (gan.G, gan.D) for n, p in net.named_parameters()}
    assert all(p.isfinite().all() for p in after.values())
    attention = [n for n in before if re.search("query|key|gamma", n)]
    assert len(attention) == (0 if name == "biggan_cifar" else 6)
    assert all(not torch.equal(after[n], before[n]) for n in (*attention, "embed.weight", "linear.bias"))
