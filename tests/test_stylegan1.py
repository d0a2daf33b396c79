"""StyleGAN, the first: each layer beside its definition in float64, growth, and the recipe's numbers.

No numbers of the published code are at hand: the references restate the description.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from networks import count
from runs import assert_resumes, saved
from torch import nn
from torch.testing import assert_close

from equipoise.config import TrainConfig
from equipoise.core.schedules import at
from equipoise.core.types import ImageSpec
from equipoise.data import Digits
from equipoise.losses import R1, NonSaturating
from equipoise.models import Head, PerClass, StyleGAN1Discriminator, StyleGAN1Generator
from equipoise.models.stylegan import Blur, Doubling, Halving, StyledLayer, adaptive_norm
from equipoise.nn import enlarge, set_lod, shrink
from equipoise.recipes.stylegan import stylegan
from equipoise.rules import Adam, EMAConfig, ProgressiveGrowing, Report
from equipoise.rules.growth import Stages

SPEC = ImageSpec(28, 3, num_classes=10)
SIZES = (7, 14, 28)


def small_g(spec=SPEC, **fields):
    settings = {"z_dim": 6, "w_dim": 8, "mapping_layers": 3, "channel_base": 128, "channel_max": 8}
    return StyleGAN1Generator(**settings | fields).build(spec)


def small_d(spec=SPEC, head=None, **fields):
    return (head or Head()).build(
        StyleGAN1Discriminator(**{"channel_base": 128, "channel_max": 8} | fields).build, spec
    )


def drawn(net):
    """With every weight, strength and bias drawn, in float64."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.normal_(0.0, 100.0 if ".fc" in name and "mapping" in name else 1.0)
    return net.double()


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def at_level(net, lod):
    net = copy.deepcopy(net)
    set_lod(net, lod)
    return net


# ---- layers ----------------------------------------------------------------------------------------------


def act(h):
    return torch.where(h > 0, h, 0.2 * h)


def twice(h):
    return h.repeat_interleave(2, 2).repeat_interleave(2, 3)


def half(h):
    return (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4


def convolved(h, weight, factor=2**0.5):
    """With N(0, 1) weights times factor / √inputs."""
    return F.conv2d(h, weight * (factor / math.sqrt(weight[0].numel())), padding=weight.shape[-1] // 2)


def blurred(h):
    out, padded = torch.zeros_like(h), F.pad(h, (1, 1, 1, 1))
    for i, a in enumerate((1, 2, 1)):
        for j, b in enumerate((1, 2, 1)):
            out += a * b / 16 * padded[..., i : i + h.shape[2], j : j + h.shape[3]]
    return out


def styled(h, s, b):
    """x (s + 1) + b of x, each map less its mean, over its deviation."""
    out = torch.empty_like(h)
    for n, maps in enumerate(h):
        for c, m in enumerate(maps):
            centred = m - m.mean()
            out[n, c] = centred / (centred.square().mean() + 1e-8).sqrt() * (s[n, c] + 1) + b[n, c]
    return out


def bias(weights, name):
    return weights[f"{name}.bias"][:, None, None]


def after_convolution(h, weights, name, w):
    """Noise, bias, activation, norm, style, in this order."""
    h = h + weights[f"{name}.noise_strength"][:, None, None] * weights[f"{name}.noise_const"]
    h = act(h + bias(weights, name))
    style = w @ weights[f"{name}.affine.weight"].T / math.sqrt(w.shape[1]) + weights[f"{name}.affine.bias"]
    return styled(h, *style.chunk(2, dim=1))


def mapped(weights, z, y, layers):
    h = torch.cat([z, weights["mapping.embed.weight"].T[y]], 1)
    h = h / (h.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for i in range(layers):
        W, b = weights[f"mapping.fc{i}.weight"], weights[f"mapping.fc{i}.bias"]
        h = act(h @ W.T * (0.01 * math.sqrt(2) / math.sqrt(W.shape[1])) + 0.01 * b)
    return h


def test_the_generator_layer_by_layer():
    """With classes, in the unfused form, the styles and the images of every size."""
    G, z, y = drawn(small_g()).eval(), random(3, 6), torch.tensor([2, 9, 2])
    weights = G.state_dict()
    w = mapped(weights, z, y, 3)
    assert_close(G.mapping(z, y), w[:, None].expand(-1, 6, -1))
    ws = random(3, 6, 8)
    h = weights["synthesis.b7.const"].expand(3, -1, -1, -1)
    for i, size in enumerate(SIZES):
        block = f"synthesis.b{size}"
        if i:
            h = blurred(convolved(twice(h), weights[f"{block}.conv0.weight"]))
        h = after_convolution(h, weights, f"{block}.styled0", ws[:, 2 * i])
        h = after_convolution(
            convolved(h, weights[f"{block}.conv1.weight"]), weights, f"{block}.styled1", ws[:, 2 * i + 1]
        )
        x = convolved(h, weights[f"{block}.torgb.weight"], factor=1.0) + bias(weights, f"{block}.torgb")
        assert_close(at_level(G, 2 - i).synthesis(ws), enlarge(x, 2 - i))


def test_the_discriminator_layer_by_layer():
    """From each size, with the deviation of a group of four, and one logit for each class."""
    D, x, y = drawn(small_d(head=Head(PerClass()))), random(4, 3, 28, 28), torch.tensor([2, 9, 2, 0])
    weights = D.state_dict()

    def layer(h, name):
        return act(convolved(h, weights[f"{name}.weight"]) + bias(weights, name))

    for missing in range(3):
        h, sizes = shrink(x, missing), SIZES[::-1][missing:]
        h = layer(h, f"body.b{sizes[0]}.fromrgb")
        for size in sizes[:-1]:
            block = f"body.b{size}"
            h = blurred(layer(h, f"{block}.conv0"))
            h = act(half(convolved(h, weights[f"{block}.conv1.weight"])) + bias(weights, f"{block}.conv1"))
        deviation = (h.var(0, correction=0) + 1e-8).sqrt().mean()
        h = layer(torch.cat([h, deviation.expand(4, 1, 7, 7)], 1), "body.b7.conv")
        fc = weights["body.b7.fc.weight"]
        h = act(h.flatten(1) @ fc.T * math.sqrt(2) / math.sqrt(8 * 49) + weights["body.b7.fc.bias"])
        of_classes = h @ weights["head.conditioning.embed.weight"].T / math.sqrt(8)
        assert_close(at_level(D, missing)(x, y).fun, (of_classes * F.one_hot(y, 10)).sum(1, keepdim=True))


def test_the_fused_forms():
    """Below and from 128x128 on: values, and both derivatives, the edges included."""
    for c_in, c_out, size in ((3, 2, 1), (2, 3, 7), (1, 2, 64)):
        for made, reads, plainly in (
            (Doubling(c_in, c_out), size, lambda h, W: F.conv2d(twice(h), W, padding=1)),
            (Halving(c_in, c_out), 2 * size, lambda h, W: half(F.conv2d(h, W, padding=1))),
        ):
            layer, h = drawn(made), random(2, c_in, reads, reads).requires_grad_()
            wanted = plainly(h, layer.weight / math.sqrt(9 * c_in)) + layer.bias[:, None, None]
            found = layer(h)
            assert_close(found, wanted)
            probe = random(*wanted.shape)
            slopes = [torch.autograd.grad((y.tanh() * probe).sum(), h, create_graph=True)[0] for y in (found, wanted)]
            assert_close(*slopes)
            assert_close(*(torch.autograd.grad(s.square().sum(), layer.weight)[0] for s in slopes))


def test_blur_and_norm():
    """Of small and constant maps too, and in low precision."""
    h = random(2, 3, 5, 4)
    assert_close(Blur().double()(h), blurred(h))
    scale, shift = random(2, 3, 1, 1), random(2, 3, 1, 1)
    for maps in (h, 1e-4 * h, torch.ones_like(h), h + 100):
        wanted = styled(maps, scale[..., 0, 0] - 1, shift[..., 0, 0])
        assert_close(adaptive_norm(maps, scale, shift), wanted)
    low = adaptive_norm((h + 100).to(torch.bfloat16), scale.float(), shift.float())
    assert low.dtype == torch.bfloat16
    assert_close(low.double(), adaptive_norm((h + 100).bfloat16().double(), scale, shift), atol=0.05, rtol=0.02)


def test_one_noise_image_for_all_channels_and_each_image_its_own():
    layer = StyledLayer(StyleGAN1Generator(w_dim=2), 3, 6)
    nn.init.constant_(layer.noise_strength[1:], 2.0)
    nn.init.constant_(layer.bias, 100.0)  # no value is below 0
    h, w = torch.zeros(2, 3, 6, 6), torch.zeros(2, 2)
    nn.init.zeros_(layer.affine.weight)
    out = layer(h, w, "random")
    assert out[:, 0].abs().max() < 1e-3
    assert out[:, 1].std() > 0.5
    assert_close(out[:, 1], out[:, 2])
    assert not torch.allclose(out[0, 1], out[1, 1])
    const = layer(h, w, "const")
    assert torch.equal(const[0], const[1])
    assert torch.equal(const, layer(h, w, "const"))
    assert layer(h, w, "none").abs().max() < 1e-3


def test_the_first_networks():
    """Ones, strengths and biases of 0, weights of size 1; a first image of about one in size."""
    torch.manual_seed(0)
    G = small_g(channel_base=1024, channel_max=64, w_dim=64, z_dim=64)
    for net in (G, small_d(channel_base=1024, channel_max=64, head=Head(PerClass()))):
        for name, p in net.named_parameters():
            if name.endswith((".const", "noise_strength", "bias")):
                assert (p == float(name.endswith(".const"))).all(), name
            else:
                multiplier = 0.01 if ".fc" in name and "mapping" in name else 1
                assert p.std().item() * multiplier == pytest.approx(1, rel=5 / math.sqrt(p.numel())), name
    assert 0.3 < G(torch.randn(8, 64), torch.arange(8)).std() < 3


# ---- sizes -----------------------------------------------------------------------------------------------


def test_the_weights_at_1024():
    """Layer by layer. The paper, table 1, counts 26.2 M in G; D is ProGAN's, in whose code it has 23,087,249."""
    sides = [2**k for k in range(2, 11)]
    widths = {side: min(16384 // side, 512) for side in sides}
    g, d = 8 * (512 * 512 + 512), 0
    for side in sides:
        c = widths[side]
        after = c + c + (512 * 2 * c + 2 * c)  # strength, bias, style
        g += after + (9 * c * c + after) + (3 * c + 3)
        d += 3 * c + c
        if side == 4:
            g += 16 * c
            d += (9 * (c + 1) * c + c) + (16 * c * 512 + 512) + (512 + 1)
        else:
            g += 9 * widths[side // 2] * c
            d += (9 * c * c + c) + (9 * c * widths[side // 2] + widths[side // 2])
    with torch.device("meta"):
        G = StyleGAN1Generator().build(ImageSpec(1024))
        D = Head().build(StyleGAN1Discriminator().build, ImageSpec(1024))
        assert D(G.eval()(torch.randn(4, 512))).fun.shape == (4, 1)
    assert (count(G), count(D)) == (g, d) == (26_219_627, 23_087_249)
    assert G.num_ws == 18
    assert widths[1024] == 16


def test_other_sizes():
    for size in (8, 10, 12, 28, 48):
        x = small_g(ImageSpec(size, 1))(torch.randn(4, 6))
        assert x.shape == (4, 1, size, size)
        assert small_d(ImageSpec(size, 1))(x).fun.shape == (4, 1)
    for build in (small_g, small_d):
        with pytest.raises(ValueError, match=r"data.resolution=32 or data.resolution=40"):
            build(ImageSpec(33))


# ---- growth ----------------------------------------------------------------------------------------------


def test_fading_in():
    """The mixture of both sizes' images in G, and of maps in D: the smaller size's at first, then the larger one's."""
    G, D = drawn(small_g(ImageSpec(28, 3))).eval(), drawn(small_d())
    z, x = random(4, 6), random(4, 3, 28, 28)
    for alpha in (1e-9, 0.25, 1 - 1e-9):
        mixed = alpha * at_level(G, 1)(z) + (1 - alpha) * at_level(G, 2)(z)
        assert_close(at_level(G, 2 - alpha)(z), mixed)
        b14, b7, small = D.body.b14, D.body.b7, shrink(x, 1)
        h = b14(act(b14.fromrgb(small)))
        h = D.head(b7(alpha * h + (1 - alpha) * act(b7.fromrgb(shrink(small, 1))))).fun
        assert_close(at_level(D, 2 - alpha)(x).fun, h)
    assert_close(at_level(G, 1 + 1e-9)(z), at_level(G, 1)(z))
    assert_close(at_level(D, 1 + 1e-9)(x).fun, at_level(D, 1)(x).fun)
    assert not torch.allclose(at_level(G, 0)(z), at_level(G, 1)(z))
    assert not torch.allclose(at_level(D, 0)(x).fun, at_level(D, 1)(x).fun)


def test_layers_that_wait_are_not_used():
    """NaN in them changes nothing; the other layers learn."""
    G, D = at_level(small_g(ImageSpec(28, 3)), 1.5), at_level(small_d(), 1.5)
    resting = [G.synthesis.b28, D.body.b28]
    with torch.no_grad():
        for p in (p for block in resting for p in block.parameters()):
            p.fill_(math.nan)
    logits = D(G(torch.randn(4, 6))).fun
    logits.tanh().sum().backward()
    for name, p in (*G.named_parameters(), *D.named_parameters()):
        assert (p.grad is None) == ("b28" in name), name


def test_styles_are_mixed_among_the_layers_in_use():
    G = small_g(ImageSpec(28, 3), mixing=1.0)
    z = torch.randn(1, 6)
    for lod, last in ((0, 6), (0.5, 6), (1, 4), (1.5, 4), (2, 2)):
        set_lod(G, lod)
        cuts = set()
        for _ in range(60):
            ws = G.styles(z)[0]
            assert ws.shape == (6, 8)
            cuts.add(int((ws != ws[0]).any(1).nonzero()[0]))
        assert cuts == set(range(1, last)), lod
    assert copy.deepcopy(at_level(G, 1)).in_use.__self__ is not G.synthesis


# ---- training --------------------------------------------------------------------------------------------


def test_a_run_grows_and_resumes_bit_for_bit(tmp_path):
    """Through all sizes of the digits. The average has w_avg and the level of G."""
    cfg = TrainConfig(
        data=Digits(),
        generator=StyleGAN1Generator(z_dim=6, w_dim=8, mapping_layers=2, channel_base=128, channel_max=8),
        discriminator=StyleGAN1Discriminator(channel_base=128, channel_max=8),
        loss=NonSaturating(),
        terms=(R1(gamma=10.0, every=1),),
        growth=ProgressiveGrowing(initial=4, stable_kimg=0.008, fade_kimg=0.012, batch_sizes=((14, 4),)),
        g_optim=Adam(lr=0.001, betas=(0.0, 0.99)),
        d_optim=Adam(lr=0.001, betas=(0.0, 0.99)),
        ema=EMAConfig(halflife_kimg=0.01),
        batch_size=8,
        total_kimg=0.048,
        report=Report(log_kimg=0.008, snapshot_kimg=0.016),
    )
    assert_resumes(cfg, tmp_path)
    G, ema = (saved(tmp_path / "whole", name) for name in ("G", "ema"))
    assert G["mapping.w_avg"].abs().max() > 0
    assert torch.equal(G["mapping.w_avg"], ema["mapping.w_avg"])
    assert G["synthesis.lod.value"] == ema["synthesis.lod.value"] == 0


def test_the_published_schedule():
    """At 1024: the size in use, images per batch and learning rate, after so many thousand images."""
    cfg = stylegan(1024)
    stages = Stages.of(cfg, 1024)
    for kimg, size, batch, rate in (
        (0, 8, 256, 1e-3),
        (600, 8, 256, 1e-3),
        (601, 16, 128, 1e-3),
        (1801, 32, 64, 1e-3),
        (3001, 64, 32, 1e-3),
        (4200, 64, 32, 1e-3),
        (4201, 128, 32, 1.5e-3),
        (5401, 256, 32, 2e-3),
        (6601, 512, 32, 3e-3),
        (7801, 1024, 32, 3e-3),
        (25000, 1024, 32, 3e-3),
    ):
        nimg = kimg * 1000
        assert 1024 >> int(stages.lod(nimg)) == size, kimg
        assert stages.batch_size(nimg) == batch, kimg
        assert at(cfg.g_optim.lr, nimg) == at(cfg.d_optim.lr, nimg) == rate, kimg
    assert stages.lod(900_000) == 6.5
    assert stages.lod(8_400_000) == 0
    assert stylegan().g_optim.lr == stylegan(64).g_optim.lr == 1e-3
    assert cfg.terms == (R1(gamma=10.0, every=1),)
    assert (cfg.g_optim.betas, cfg.g_optim.eps, cfg.ema.halflife_kimg) == ((0.0, 0.99), 1e-8, 10.0)
