"""ProGAN's networks, level by level; pixel norm, equalised learning rate, the drift penalty, and the recipes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import count, of_g
from torch import nn
from torch.testing import assert_close

from equipoise import recipes
from equipoise.config import override
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import R1, Drift, GradientPenalty, Hinge, Orthogonal, Wasserstein
from equipoise.models import (
    Auxiliary,
    DCGANDiscriminator,
    Head,
    Hidden,
    Input,
    MLPDiscriminator,
    NoConditioning,
    PerClass,
    ProGANDiscriminator,
    ProGANGenerator,
    Projection,
)
from equipoise.nn import LevelOfDetail, PixelNorm, enlarge, set_lod, shrink
from equipoise.rules import Adam, ProgressiveGrowing
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import EqualizedLearningRate, NoNormalizer, SpectralNorm, effective_weight, remove
from equipoise.weights.equalized import Scaled

SPEC = ImageSpec(32, 3, num_classes=10)
WITHOUT_CLASSES = of_g(SPEC, False)


def small_g(**fields):
    return ProGANGenerator(**{"z_dim": 8, "width": 6, "full_until": 8} | fields)


def small_d(**fields):
    return ProGANDiscriminator(**{"width": 6, "full_until": 8} | fields)


def build_d(cfg, spec=SPEC, head=None):
    return (head or Head()).build(cfg.build, spec)


def noise(n=4, dim=8):
    return torch.randn(n, dim)


def pictures(n=4, spec=SPEC):
    return torch.rand(n, spec.channels, spec.resolution, spec.resolution) * 2 - 1


def at_level(net, lod):
    """A copy of `net` at a level of detail."""
    net = copy.deepcopy(net)
    set_lod(net, lod)
    return net


# ---- the table of the paper --------------------------------------------------------------------------------------

WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128, 256: 64, 512: 32, 1024: 16}
"""Channels of the maps of each size (Karras et al. 2018, table 2)."""


def conv_size(c_in, c_out, kernel=3):
    return c_in * c_out * kernel**2 + c_out


@pytest.mark.parametrize("resolution", WIDTHS)
def test_the_weights_are_those_of_the_table(resolution):
    """With a layer that makes or reads images at each size. At 1024 the authors' code counts 23,079,115 in G."""
    sizes = [size for size in WIDTHS if size <= resolution]
    g = 512 * 512 * 16 + 512 + conv_size(512, 512)
    d = conv_size(512 + 1, 512) + (512 * 16 * 512 + 512) + 512  # deviation, linear layer, head without a bias
    for size in sizes:
        w = WIDTHS[size]
        g += conv_size(w, 3, 1)
        d += conv_size(3, w, 1)
        if size > 4:
            before = WIDTHS[size // 2]
            g += conv_size(before, w) + conv_size(w, w)
            d += conv_size(w, w) + conv_size(w, before)
    with torch.device("meta"):
        G, D = (
            ProGANGenerator().build(ImageSpec(resolution, 3)),
            build_d(ProGANDiscriminator(minibatch="std"), ImageSpec(resolution, 3)),
        )
        x = G(torch.randn(2, 512))
        assert x.shape == (2, 3, resolution, resolution)
        assert D(x).fun.shape == (2, 1)
    assert (count(G), count(D)) == (g, d)
    if resolution == 1024:
        assert (g, d) == (23_079_115, 23_087_248)


@pytest.mark.parametrize(("width", "full_until", "wanted"), [(512, 32, 512), (512, 8, 128), (128, 64, 128), (2, 4, 1)])
def test_channels_halve_beyond(width, full_until, wanted):
    """The configurations of the authors: 8192/512; 2048/512 for ablations; 4096/128 for CIFAR-10."""
    D = build_d(ProGANDiscriminator(width=width, full_until=full_until))
    assert D.body.entries[0].from_image[0].out_channels == wanted


@loop_over(("resolution", "base"), [(4, 4), (7, 7), (8, 4), (28, 7), (48, 6), (80, 5), (14, 7)])
@loop_over("channels", [1, 3])
def test_other_sizes(resolution, base, channels):
    spec = ImageSpec(resolution, channels)
    G, D = small_g().build(spec), build_d(small_d(), spec)
    assert G.blocks[0][1].kernel_size == (base, base)
    doublings = int(math.log2(resolution / base))
    for lod in range(doublings + 1):
        set_lod(G, lod)
        set_lod(D, lod)
        x = G(noise())
        assert x.shape == (4, channels, resolution, resolution)
        assert D(x).fun.shape == (4, 1)
    with pytest.raises(ValueError, match=f"levels of detail from 0 to {doublings}, got {doublings + 0.5}"):
        set_lod(G, doublings + 0.5)


@loop_over("cfg", [ProGANGenerator(), ProGANDiscriminator()], ids=["G", "D"])
def test_a_size_without_halvings_is_refused_with_the_nearest(cfg):
    head = () if isinstance(cfg, ProGANGenerator) else (Head().factory(0),)
    with pytest.raises(ValueError, match=r"data.resolution=32 or data.resolution=40"):
        cfg.build(ImageSpec(36 - 3, 3), *head)


def test_the_generator_layer_by_layer():
    """As the table has it: G of 8x8 from torch's functions alone."""
    G, z, y = small_g(output="linear").build(ImageSpec(8, 3, 10)), noise(), torch.arange(4)
    w = dict(G.named_parameters())

    def pn(h):
        return torch.stack([v / (v.square().mean(0) + 1e-8).sqrt() for v in h])

    def act(h):
        return pn(torch.where(h > 0, h, 0.2 * h))

    h = pn(torch.cat([z, torch.eye(10)[y]], 1))
    weight, bias = w["blocks.0.1.weight"], w["blocks.0.1.bias"]
    h = act(torch.einsum("ni,iohw->nohw", h, weight) + bias[:, None, None])  # 4x4
    h = act(F.conv2d(h, w["blocks.0.4.weight"], w["blocks.0.4.bias"], padding=1))
    h = h.repeat_interleave(2, 2).repeat_interleave(2, 3)
    h = act(F.conv2d(h, w["blocks.1.1.weight"], w["blocks.1.1.bias"], padding=1))
    h = act(F.conv2d(h, w["blocks.1.4.weight"], w["blocks.1.4.bias"], padding=1))
    assert_close(G(z, y), F.conv2d(h, w["to_image.1.weight"], w["to_image.1.bias"]))


def test_the_discriminator_layer_by_layer():
    D, x = build_d(small_d(minibatch="std"), ImageSpec(8, 3)), pictures(4, ImageSpec(8, 3))
    w = dict(D.named_parameters())

    def layer(h, name, padding):
        return F.leaky_relu(F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding), 0.2)

    h = layer(x, "body.entries.0.from_image.0", 0)
    h = layer(h, "body.entries.0.block.0", 1)
    h = layer(h, "body.entries.0.block.2", 1)
    h = (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4
    deviation = (h.var(0, correction=0) + 1e-8).sqrt().mean()
    h = layer(torch.cat([h, deviation.expand(4, 1, 4, 4)], 1), "body.entries.1.block.1", 1)
    h = F.leaky_relu(h.flatten(1) @ w["body.entries.1.block.4.weight"].T + w["body.entries.1.block.4.bias"], 0.2)
    assert_close(D(x).fun, h @ w["head.conditioning.linear.weight"].T)


def test_initialisation():
    """He's, of gain √2 but for the layers that make images; the first as a convolution from 1x1; biases 0."""
    G, D = (
        ProGANGenerator(z_dim=300, width=64, full_until=64).build(WITHOUT_CLASSES),
        build_d(ProGANDiscriminator(width=64, full_until=64)),
    )
    wanted = {"blocks.0.1": (2 / (300 * 16)) ** 0.5, "blocks.1.4": (2 / (64 * 9)) ** 0.5, "to_image.0": (1 / 64) ** 0.5}
    for net, name, std in [
        *((G, name, std) for name, std in wanted.items()),
        (D, "body.entries.0.from_image.0", (2 / 3) ** 0.5),
        (D, "body.entries.3.block.3", (2 / (64 * 16)) ** 0.5),
    ]:
        layer = net.get_submodule(name)
        n = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(std, rel=4 / n**0.5), name
        assert (layer.bias == 0).all()


# ---- fading in ---------------------------------------------------------------------------------------------------


def smaller(G, D):
    """The same players for images of half the size, with the weights that they share."""
    half = ImageSpec(16, 3, 10)
    g, d = small_g().build(of_g(half, False)), build_d(small_d(), half)
    g.load_state_dict({k: v for k, v in G.state_dict().items() if k in g.state_dict()})
    shifted = {}
    for name, value in D.state_dict().items():
        parts = name.split(".")
        if parts[1] == "entries":
            parts[2] = str(int(parts[2]) - 1)
        shifted[".".join(parts)] = value
    d.load_state_dict({k: v for k, v in shifted.items() if k in d.state_dict()})
    return g, d


def test_at_alpha_0_a_net_is_the_smaller_one_and_at_alpha_1_the_larger_one_exactly():
    G, D, z, x = small_g().build(WITHOUT_CLASSES), build_d(small_d()), noise(), pictures()
    g, d = smaller(G, D)
    assert torch.equal(at_level(G, 1)(z), enlarge(g(z), 1))
    assert torch.equal(at_level(D, 1)(x).fun, d(shrink(x, 1)).fun)
    fresh = small_g().build(WITHOUT_CLASSES)  # never told of a level
    fresh.load_state_dict(G.state_dict())
    assert torch.equal(at_level(G, 0)(z), fresh(z))
    assert not torch.equal(at_level(G, 0)(z), at_level(G, 1)(z))
    assert not torch.equal(at_level(D, 0)(x).fun, at_level(D, 1)(x).fun)


@loop_over("alpha", [1e-6, 0.25, 0.5, 0.75, 1 - 1e-6])
def test_in_between_the_images_are_a_mixture(alpha):
    """alpha of the larger size, 1 - alpha of the smaller, before tanh; and the maps in D likewise."""
    G, D, z, x = small_g(output="linear").build(WITHOUT_CLASSES), build_d(small_d()), noise(), pictures()
    mixed = alpha * at_level(G, 1)(z) + (1 - alpha) * at_level(G, 2)(z)
    assert_close(at_level(G, 2 - alpha)(z), mixed, atol=1e-5, rtol=1e-5)
    first, second, *others = list(D.body.entries)[1:]
    small = F.avg_pool2d(x, 2)
    h = alpha * first.block(first.from_image(small)) + (1 - alpha) * second.from_image(F.avg_pool2d(small, 2))
    for entry in (second, *others):
        h = entry.block(h)
    assert_close(at_level(D, 2 - alpha)(x).fun, D.head(h).fun, atol=1e-5, rtol=1e-5)


def test_layers_that_are_not_grown_are_not_used():
    """NaN in them changes nothing."""
    G, D = at_level(small_g().build(WITHOUT_CLASSES), 2), at_level(build_d(small_d()), 2)
    wanted = G(noise()), D(pictures()).fun
    with torch.no_grad():
        for module in (*G.blocks[2:], *G.to_image[2:], *D.body.entries[:2], G.to_image[0]):
            for p in module.parameters():
                p.fill_(math.nan)
        for p in D.body.entries[3].from_image.parameters():  # of images smaller than those in use
            p.fill_(math.nan)
    assert G(noise()).isfinite().all()
    assert D(pictures()).fun.isfinite().all()
    assert wanted[0].shape == (4, 3, 32, 32)


@loop_over("lod", [0.0, 0.3, 1.0, 2.7, 3.0])
@loop_over("san", [False, True], ids=["plain", "san"])
def test_every_weight_in_use_has_a_gradient_and_no_other(lod, san):
    G, D = (
        at_level(small_g().build(SPEC), lod),
        at_level(build_d(small_d(), head=Head(Projection(), san=san)), lod),
    )
    y = torch.arange(4)
    logits = D(G(noise(), y), y)
    sum(f.tanh().sum() for f in (logits.fun, logits.dir) if f is not None).backward()
    top, shown = 3 - int(lod), {3 - int(lod), 3 - math.ceil(lod)}  # in doublings
    for name, p in G.named_parameters():
        kind, i = name.split(".")[0], int(name.split(".")[1])
        assert (p.grad is not None and p.grad.abs().sum() > 0) == (i in shown if kind == "to_image" else i <= top), name
    for name, p in D.body.named_parameters():
        _, i, kind, *_ = name.split(".")
        doublings = 3 - int(i)
        used = doublings in shown if kind == "from_image" else doublings <= top
        assert (p.grad is not None and p.grad.abs().sum() > 0) == used, name


def test_the_first_layers_of_the_discriminator_are_those_next_to_the_image():
    """Which is what a transfer that freezes some counts on."""
    names = [name for name, _ in build_d(small_d()).body.named_parameters()]
    assert names[0].startswith("entries.0.from_image")
    assert names[2].startswith("entries.0.block.0")
    assert names[-1].startswith("entries.3.block")


# ---- precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lod", [0.0, 1.5])
def test_autocast_agrees_with_float32(lod):
    """With several channels at each size: of one, pixel norm leaves the sign alone, which rounding may turn."""
    G, D = (
        small_g(width=32, full_until=16).build(WITHOUT_CLASSES),
        build_d(small_d(width=32, full_until=16, minibatch="std")),
    )
    G, D = at_level(G, lod), at_level(D, lod)
    z, x = noise(), pictures()
    with torch.autocast("cpu", torch.bfloat16):
        images, logits = G(z), D(x).fun
    assert_close(images.float(), G(z), atol=0.1, rtol=0.1)
    assert_close(logits, D(x).fun, atol=0.1, rtol=0.1)


@loop_over("lod", [0.0, 0.4, 2.0])
def test_the_gradient_of_the_gradient_is_right(lod):
    """Double backward through D, mixtures and halvings included, against differences in float64."""
    D = at_level(build_d(small_d(width=2), ImageSpec(16, 1)).double(), lod)
    x = pictures(2, ImageSpec(16, 1)).double()
    weight = D.body.entries[-1].block[-2].weight

    def penalty():
        inputs = x.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(D(inputs).fun.sum(), inputs, create_graph=True)
        return gradient.square().sum()

    (exact,) = torch.autograd.grad(penalty(), weight)
    direction, step = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight.add_(direction, alpha=step)
    above = penalty()
    with torch.no_grad():
        weight.sub_(direction, alpha=2 * step)
    assert_close((exact * direction).sum(), ((above - penalty()) / (2 * step)).detach(), rtol=1e-4, atol=1e-8)


def test_pixel_norm_is_a_division_at_each_position():
    h = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    wanted = torch.empty_like(h)
    for n in range(2):
        for i in range(3):
            for j in range(4):
                v = h[n, :, i, j]
                wanted[n, :, i, j] = v / math.sqrt(sum(float(a) ** 2 for a in v) / 5 + 1e-8)
    assert_close(PixelNorm()(h), wanted)
    assert_close(PixelNorm()(h.bfloat16()).double(), wanted, atol=0.02, rtol=0.02)


# ---- equalised learning rate -------------------------------------------------------------------------------------


def normalised(net):
    EqualizedLearningRate()(net)
    return net


def layers_of(net):
    return [m for m in net.modules() if hasattr(m, "parametrizations")]


@loop_over("cfg", [ProGANDiscriminator(width=32), DCGANDiscriminator(norm="none"), MLPDiscriminator()], ids=repr)
def test_equalised_weights_have_size_1_and_the_net_computes_what_it_did(cfg):
    """Any architecture, within the error of a draw of so many weights."""
    D = build_d(cfg)
    before, x = copy.deepcopy(D), pictures()
    D = normalised(D)
    assert_close(D(x).fun, before(x).fun)
    for layer in layers_of(D):
        v = layer.parametrizations.weight.original
        assert v.square().mean().sqrt().item() == pytest.approx(1, abs=3 / v.numel() ** 0.5)
    folded = remove(copy.deepcopy(D))
    assert not layers_of(folded)
    assert_close(folded(x).fun, before(x).fun)


def constants(net):
    """c of each normalised layer by name."""
    named = {name.removesuffix(".parametrizations.weight.0"): m for name, m in net.named_modules()}
    return {name: m.c.item() for name, m in named.items() if isinstance(m, Scaled)}


def test_the_constant_is_hes_exactly():
    """c = √(2 / inputs) whatever was drawn, and 1/√inputs where images are made and in the head, as in their code.

    The layer that reads z counts its inputs once for each of the 4x4 positions.
    """
    G, D = (
        ProGANGenerator(z_dim=8, width=4, full_until=64).build(WITHOUT_CLASSES),
        build_d(ProGANDiscriminator(width=4)),
    )
    wanted_g = {
        name: (1 if "to_image" in name else 2) / (layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else 8 * 16)
        for name, layer in G.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    }
    wanted_d = {
        name: (1 if "head" in name else 2) / layer.weight[0].numel()
        for name, layer in D.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    for net, wanted in ((G, wanted_g), (D, wanted_d)):
        found = constants(normalised(copy.deepcopy(net)))
        assert found == pytest.approx({name: square**0.5 for name, square in wanted.items()}, rel=1e-7)


def test_the_constant_of_weights_of_ones_own_is_their_root_mean_square():
    """Also of a layer that PyTorch initialised; DCGAN's 0.02 is exact."""
    D = build_d(MLPDiscriminator(width=8, depth=1))
    rms = {name: m.weight.square().mean().sqrt().item() for name, m in D.body.named_modules() if hasattr(m, "weight")}
    assert constants(normalised(D).body) == pytest.approx(rms, rel=1e-6)
    assert set(constants(normalised(build_d(DCGANDiscriminator(width=2))).body).values()) == {torch.tensor(0.02).item()}


def test_adam_moves_every_layer_by_the_same_share():
    """|ΔW| = lr · c: 1e-3 of √(2 / inputs), in layers of 3 and of 512 inputs. Without, far more of the wide one."""
    shares = {}
    for equalized in (True, False):
        torch.manual_seed(0)
        D = build_d(ProGANDiscriminator(width=32, full_until=64))
        D = normalised(D) if equalized else D
        adam = Adam(lr=1e-3, betas=(0.0, 0.99)).build(D)
        layers = [D.body.entries[0].from_image[0], D.body.entries[3].block[3]]
        before = [effective_weight(layer).detach().clone() for layer in layers]
        D(pictures()).fun.sum().backward()
        adam.step()
        shares[equalized] = [
            ((effective_weight(layer) - w).abs().median() / math.sqrt(2 / w[0].numel())).item()
            for layer, w in zip(layers, before, strict=True)
        ]
    assert shares[True] == pytest.approx([1e-3, 1e-3], rel=0.01)
    assert shares[False][1] / shares[False][0] > 10


def test_a_layer_of_zeros_learns_at_the_plain_rate():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    net = normalised(nn.Sequential(layer))
    assert (net[0].weight == 0).all()
    net[0].weight.sum().backward()
    assert (net[0].parametrizations.weight.original.grad == 1).all()


def test_equalised_heads_and_what_is_left_alone():
    D = normalised(build_d(small_d(), head=Head(Projection())))
    assert len(layers_of(D.head)) == 2
    D = normalised(build_d(small_d(), head=Head(Projection(), san=True)))
    assert not layers_of(D.head)  # its direction is learned apart
    D = build_d(small_d())
    EqualizedLearningRate(skip=("head.*", "body.entries.0.*"))(D)
    assert not layers_of(D.head)
    assert not layers_of(D.body.entries[0])
    assert layers_of(D.body.entries[1])
    with pytest.raises(ValueError, match=r"EqualizedLearningRate\(skip=...\): 'tail' matches no layer"):
        EqualizedLearningRate(skip=("tail",))(D)


# ---- drift -------------------------------------------------------------------------------------------------------


def test_drift_is_the_square_of_real_logits():
    """E D(x)² on real images alone, weighed 0.001; of several logits the mean of squares, not the square of the sum."""
    drift, seen = Drift(), []
    logits = torch.tensor([[1.0], [-3.0], [0.5]])

    def critic(x, y):
        seen.append((x, y))
        return logits

    real, fake = Batch(torch.randn(3, 1, 2, 2), torch.arange(3)), Batch(torch.randn(3, 1, 2, 2))
    assert_close(drift(critic, real, fake), torch.tensor([1.0, 9.0, 0.25]))
    assert len(seen) == 1
    assert torch.equal(seen[0][0], real.x)
    assert torch.equal(seen[0][1], real.y)
    assert_close(drift(lambda x, y: torch.tensor([[1.0, 3.0]]), real, fake), torch.tensor([5.0]))
    assert drift.weight(0) == 0.001


def test_drift_pulls_a_constant_back():
    """Which the loss and the gradient penalty leave where it is."""
    D = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    real, fake = Batch(torch.randn(64, 1, 2, 2)), Batch(torch.randn(64, 1, 2, 2))
    for penalty, moves in ((GradientPenalty(), False), (Drift(), True)):
        D[1].bias.grad = None
        penalty(lambda x, y: D(x) + 5, real, fake).mean().backward()
        assert (D[1].bias.grad is not None and D[1].bias.grad.abs() > 0) == moves


def test_drift_is_float32_under_autocast():
    D, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), torch.randn(3, 1, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        value = Drift()(lambda x, y: D(x), Batch(x), Batch(x))
    assert torch.equal(value, D(x).square().mean(1))


# ---- with everything else ----------------------------------------------------------------------------------------


@loop_over("conditioning", [NoConditioning, Projection, PerClass, Auxiliary, Hidden, Input])
@loop_over("san", [False, True], ids=["plain", "san"])
def test_both_steps_in_the_middle_of_a_fade(conditioning, san):
    """With either head and every conditioning, all that is in use moves, and nothing else."""
    head = Head(conditioning(), san=san)
    cfg = override(
        recipes.load("progan_small")[0],
        {
            "generator": small_g(),
            "discriminator": small_d(minibatch="std"),
            "head": head,
            "growth": ProgressiveGrowing(stable_kimg=1, fade_kimg=1),
            "batch_size": 4,
        },
    )
    gan = GAN.build(cfg, SPEC)
    gan.at(1500)  # half of 8x8
    assert gan.stages.lod(1500) == 2.5
    real, before = Batch(pictures(), torch.arange(4)), {n: p.clone() for n, p in gan.G.named_parameters()}
    stats = d_step(gan, real, 1500) | g_step(gan, real, 1500)
    assert all(value.isfinite() for value in stats.values())
    moved = {n for n, p in gan.G.named_parameters() if not torch.equal(p, before[n])}
    used = {n for n in before if int(n.split(".")[1]) <= 1}
    assert moved <= used
    assert {n for n in used if "original" in n} <= moved
    assert all(p.isfinite().all() for net in (gan.G, gan.D) for p in net.parameters())


@loop_over(
    "changes",
    [
        {"loss": Hinge(), "d_normalizer": SpectralNorm(), "terms": ()},
        {"d_normalizer": NoNormalizer(), "terms": (R1(every=1),), "loss": Hinge()},
        {"terms": (GradientPenalty(), Orthogonal(), Orthogonal(player="G"))},
        {"discriminator": DCGANDiscriminator(width=4, norm="none")},  # which does not grow
    ],
    ids=["SpectralNorm", "R1", "Orthogonal", "DCGAN"],
)
def test_it_goes_with_other_stabilisers(changes):
    base = {"generator": small_g(), "discriminator": small_d(), "batch_size": 4}
    gan = GAN.build(override(recipes.load("progan_small")[0], base | changes), SPEC)
    gan.at(0)
    real = Batch(pictures())
    stats = d_step(gan, real, 0) | g_step(gan, real, 0)
    assert all(value.isfinite() for value in stats.values())


# ---- the recipes -------------------------------------------------------------------------------------------------


def test_the_recipe_has_the_numbers_of_the_paper():
    """App. A.1: 800 + 800 kimg, batches 16, 14, 6, 3, Adam 1e-3 (0, 0.99), gradient penalty 10, drift 0.001, 0.999."""
    cfg = recipes.load("progan")[0]
    assert cfg.loss == Wasserstein()
    assert cfg.terms == (GradientPenalty(strength=10.0, target=1.0, every=1), Drift(strength=0.001, every=1))
    assert cfg.g_optim == cfg.d_optim == Adam(lr=1e-3, betas=(0.0, 0.99), eps=1e-8)
    assert cfg.g_normalizer == cfg.d_normalizer == EqualizedLearningRate()
    assert cfg.d_steps == 1
    stages = [(last, size) for last, size in cfg.growth.batches(1024, cfg.batch_size)]
    assert [size for _, size in stages] == [16, 16, 16, 16, 16, 16, 14, 6, 3]
    assert [last for last, _ in stages[:3]] == [800_000, 2_400_000, 4_000_000]
    assert 0.5 ** (16 / (cfg.ema.halflife_kimg * 1000)) == pytest.approx(0.999)
    assert (cfg.generator.z_dim, cfg.generator.width, cfg.generator.output) == (512, 512, "linear")
    assert cfg.growth.lod(12_800_000, 1024) == 0 < cfg.growth.lod(12_799_000, 1024)


@loop_over("size", [14, 6, 3])
def test_the_deviation_is_that_of_the_whole_batch(size):
    """Whatever its size, as in the paper: one number for all images."""
    cfg = override(recipes.load("progan")[0], {"discriminator.width": 4})
    D = cfg.head.build(cfg.discriminator.build, ImageSpec(8, 3))
    seen = []
    D.body.entries[-1].block[0].register_forward_hook(lambda module, args, out: seen.append(out))
    D(pictures(size, ImageSpec(8, 3)))
    deviations = seen[0][:, -1].unique()
    assert len(deviations) == 1


def test_the_level_is_kept_on_the_host_and_outside_casts():
    G = small_g().build(WITHOUT_CLASSES)
    set_lod(G, 1.3)
    G.to("meta")
    assert G.lod() == 1.3
    assert small_g().build(WITHOUT_CLASSES).half().lod.value.dtype == torch.float64
    with torch.device("meta"):
        assert LevelOfDetail(3)() == 0
