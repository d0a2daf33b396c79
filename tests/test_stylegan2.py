"""StyleGAN2 beside numbers of the published code: networks of every architecture, losses, gradients, sizes."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures import numbers
from networks import count
from PIL import Image
from processes import on_two_processes
from published import Published
from runs import assert_resumes, saved
from torch import nn
from torch.testing import assert_close

from benchmarks.stylegan import plain
from equipoise.compute.settings import Compute
from equipoise.config import TrainConfig
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import Digits, Images
from equipoise.generate import Generator
from equipoise.losses import R1, NonSaturating
from equipoise.models import (
    Head,
    MappedProjection,
    Projection,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)
from equipoise.models.published import network
from equipoise.rules import Adam, Report
from equipoise.train import GAN, d_step, g_step

FILES = (
    "cifar_r32_cond",
    "orig_r16_rgb",
    "resnet_r32_rgb_clamp",
    "skip_r16_rgb",
    "skip_r32_gray_clamp",
    "skip_r32_rgb_cond",
    "skip_r64_rgb",
    "variants_r16_cond",
)


class StyleGAN2(Published):
    """A file of StyleGAN2: G and D."""

    def __init__(self, name):
        super().__init__("stylegan2", name)
        self.G, self.D = self.network("G"), self.network("D")
        self.real = self["in/real_uint8"] / 127.5 - 1

    def named(self, net):
        """Parameters by their published names, in the file's order."""
        parameters = dict((self.G if net == "G" else self.D).named_parameters())
        return {name: parameters[name if net == "G" else ours(name, self.cfg)] for name in self.cfg[f"{net}_params"]}

    def has_gradients(self, phase, loss):
        """Norms of the gradients, and products with cosines: within 1e-4 of the largest norm."""
        parameters = self.named(phase[0])
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        norms, dots = self[f"grad/{phase}/norm"], self[f"grad/{phase}/dot"]
        largest = norms[norms.isfinite()].max().item()
        assert len(parameters) == len(norms)
        for (name, p), g, norm, dot in zip(parameters.items(), grads, norms, dots, strict=True):
            g = torch.zeros_like(p) if g is None else g
            found = g.double().flatten()
            cosines = torch.cos(torch.arange(len(found), dtype=torch.float64) + 0.1)
            near = pytest.approx(0 if norm.isnan() else norm.item(), abs=1e-4 * largest)
            assert found.norm().item() == near, (phase, name)
            assert (found @ cosines).item() == pytest.approx(0 if dot.isnan() else dot.item(), abs=1e-4 * largest)


def ours(name, cfg):
    """Our name of a parameter of a published D."""
    if name.startswith("mapping."):
        return f"net.head.conditioning.{name}"
    if name.startswith("b4.out."):
        layer = "out" if cfg["D_kwargs"]["c_dim"] else "linear"
        return f"net.head.conditioning.{layer}.{name[7:]}"
    return f"net.body.{name}"


@pytest.mark.parametrize("name", FILES)
def test_the_published_networks(name):
    """Styles, truncation, images, mixed styles, logits, and D's gradient by the image."""
    p = StyleGAN2(name)
    z, c, cut = p["in/z"], p["in/c"], p.cfg["mix_cutoff"]
    psi, cutoff = p.cfg["truncation"].values()
    with torch.no_grad():
        w = p.G.mapping(z, c)
        p.is_near("out/w", w)
        p.is_near("out/w_psi0.7", p.G.mapping(z, c, psi))
        p.is_near("out/w_psi0.7_cutoff", p.G.mapping(z, c, psi, cutoff))
        p.is_near("out/image", image := p.G.synthesis(w))
        assert torch.equal(p.G(z, c), image)
        mixed = torch.cat([w[:, :cut], p.G.mapping(p["in/z2"], c)[:, cut:]], 1)
        p.is_near("out/image_mix", p.G.synthesis(mixed))
        if "out/image_nonoise" in p.tensors:
            p.is_near("out/image_nonoise", p.G.synthesis(w, noise_mode="none"))
            p.is_near("out/image_psi0.7_cutoff", p.G.synthesis(p.G.mapping(z, c, psi, cutoff)))
        p.is_near("out/D_fake", p.D(image, c))
    p.is_near("out/D_real", p.D(p.real, p["in/c_real"]))
    x = p.real.clone().requires_grad_()
    p.is_near("out/D_real_grad", torch.autograd.grad(p.D(x, p["in/c_real"]).sum(), x)[0])
    p.G.mapping(z, c, update=True)
    p.is_near("out/w_avg_after", p.G.mapping.w_avg)


@pytest.mark.parametrize("name", FILES)
def test_the_published_losses_and_their_gradients(name):
    """Of all four phases, the second derivatives of R1 and of the path lengths included."""
    p = StyleGAN2(name)
    z, c = p["in/z"], p["in/c"]
    fake = p.G(z, c)
    loss = F.softplus(-p.D(fake, c))
    p.is_near("loss/Gmain", loss)
    p.has_gradients("Gmain", loss.mean())
    loss = F.softplus(p.D(fake.detach(), c)) + F.softplus(-p.D(p.real, p["in/c_real"]))
    p.is_near("loss/Dmain", loss)
    p.has_gradients("Dmain", loss.mean())
    x = p.real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(p.D(x, p["in/c_real"]).sum(), x, create_graph=True)
    penalty = slope.square().sum((1, 2, 3))
    p.is_near("loss/r1_penalty", penalty)
    p.has_gradients("Dreg", (penalty * p.cfg["r1_gamma"] / 2).mean())
    ws = p.G.mapping(z[: len(z) // 2], c[: len(c) // 2])
    image = p.G.synthesis(ws)
    noise = p["in/pl_noise_times32"] / 32 / math.sqrt(image[0, 0].numel())
    (slope,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
    lengths = slope.square().sum(2).mean(1).sqrt()
    p.is_near("out/pl_lengths", lengths)
    mean = p.cfg["pl"]["mean_before"] + 0.01 * (lengths.mean() - p.cfg["pl"]["mean_before"])
    p.has_gradients("Greg", 2 * (lengths - mean).square().mean())


def test_lower_precision_is_near():
    """The published float16 run, of two resolutions, and bfloat16 in all convolutions, beside float32."""
    half = numbers("stylegan/sg2_fp16_r32.npz")
    p = StyleGAN2("skip_r32_rgb_cond")
    images, logits = p.G(p["in/z"], p["in/c"]), p.D(p.real, p["in/c_real"])
    assert_close(images[:2], torch.from_numpy(half["out/image"]), atol=1e-2, rtol=0)
    assert_close(logits, torch.from_numpy(half["out/D_real"]), atol=1e-3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_logits = p.G(p["in/z"], p["in/c"]), p.D(p.real, p["in/c_real"])
    assert low.dtype == low_logits.dtype == torch.float32
    assert_close(low, images, atol=0.03 * images.abs().max().item(), rtol=0)
    assert_close(low_logits, logits, atol=0.02, rtol=0)


SIZES = """
auto 32 0 16384 525312 19422227 3392 21507073
auto 512 0 32768 525312 28175335 699904 28982849
auto 1024 0 32768 525312 28268812 2797104 29012513
stylegan2 1024 0 16384 2101248 22799516 2797104 24038161
cifar 32 0 32768 525312 19422227 3392 20720641
cifar 32 10 32768 793088 19422227 3392 23089664
paper256 256 10 16384 2369024 22666210 175568 26370112
paper256 256 1000 16384 2875904 22666210 175568 26876992
"""
"""Configuration, pixels, classes, channel_base; parameters of the mapping and of the synthesis; numbers in G's buffers;
parameters of D. Counted on the published code."""


def test_sizes_of_the_published_configurations():
    for line in SIZES.split("\n")[1:-1]:
        name, *rest = line.split()
        pixels, classes, base, of_mapping, of_synthesis, of_buffers, of_discriminator = map(int, rest)
        spec = ImageSpec(pixels, 3, classes)
        layers = 2 if name in ("auto", "cifar") else 8
        head = Head(MappedProjection()) if classes else Head()
        with torch.device("meta"):
            G = StyleGAN2Generator(mapping_layers=layers, channel_base=base).build(spec)
            D = head.build(
                StyleGAN2Discriminator(channel_base=base, architecture="orig" if name == "cifar" else "resnet").build,
                spec,
            )
        assert (count(G.mapping), count(G.synthesis)) == (of_mapping, of_synthesis), line
        assert sum(b.numel() for b in G.buffers()) == of_buffers, line
        assert count(D) == of_discriminator, line
        assert G.num_ws == 2 * int(math.log2(pixels)) - 2


# ---- settings --------------------------------------------------------------------------------------------


def small_g(**fields):
    return StyleGAN2Generator(
        **{"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 8} | fields
    )


def small_d(**fields):
    return StyleGAN2Discriminator(**{"channel_base": 128, "channel_max": 8} | fields)


@pytest.mark.parametrize("cfg", [small_g(), small_d()], ids=["G", "D"])
def test_other_sizes_are_refused(cfg):
    head = () if isinstance(cfg, StyleGAN2Generator) else (Head().factory(0),)
    for size, near in ((28, 32), (8, 16), (2048, 1024), (96, 64)):
        with pytest.raises(ValueError, match=rf"must be 16, 32, 64, .*, and {size} is not.*data.resolution={near}"):
            cfg.build(ImageSpec(size), *head)


def test_the_first_networks():
    """Weights of size 1, noise of no strength, styles of 1, a first image of about one in size; D's logits too."""
    torch.manual_seed(0)
    spec = ImageSpec(32, 3, 10)
    G, D = (
        StyleGAN2Generator(channel_base=1024, channel_max=64).build(spec),
        Head(MappedProjection()).build(StyleGAN2Discriminator(channel_base=1024, channel_max=64).build, spec),
    )
    for net in (G, D):
        for name, p in net.named_parameters():
            if name.endswith("noise_strength") or (name.endswith("bias") and "affine" not in name):
                assert (p == 0).all(), name
            elif name.endswith("affine.bias"):
                assert (p == 1).all(), name
            else:
                multiplier = 0.01 if ".fc" in name and "mapping" in name else 1
                assert p.std().item() * multiplier == pytest.approx(1, rel=5 / math.sqrt(p.numel())), name
    x = G(torch.randn(8, 512), torch.arange(8))
    assert 0.3 < x.std() < 3
    assert 0.1 < D(x, torch.arange(8)).fun.square().mean().sqrt() < 10


def test_noise_is_random_in_training_and_stored_in_eval_mode():
    G = small_g(mixing=0.0).build(ImageSpec(16))
    for module in G.modules():
        if hasattr(module, "noise_strength"):
            nn.init.constant_(module.noise_strength, 0.5)
    z = torch.randn(1, 8).expand(2, -1)
    with torch.no_grad():
        a, b = G(z)
        assert not torch.allclose(a, b)
        assert not torch.allclose(a, G(z)[0])
        G.eval()
        a, b = G(z)
        assert_close(a, b)
        assert torch.equal(a, G(z)[0])
        assert not torch.allclose(a, G.synthesis(G.mapping(z), noise_mode="none")[0])


@pytest.mark.parametrize(
    "head",
    [
        Head(),
        Head(MappedProjection()),
        Head(MappedProjection(), san=True),
        Head(Projection()),
        Head(Projection(), san=True),
        Head(san=True, scale="learned"),
    ],
    ids=repr,
)
def test_heads_learn_at_the_speed_of_the_body(head):
    """Adam moves the effective vectors w(y) by lr / √F, as it moves the body's layers, but for a learned scale."""
    torch.manual_seed(0)
    D = head.build(small_d().build, ImageSpec(16, 3, 10))
    y = torch.arange(4)
    vectors = getattr(D.head, "conditioning", None)
    before = None if vectors is None else vectors(y).detach().clone()
    logits = D(torch.randn(4, 3, 16, 16), y)
    assert logits.fun.shape == (4, 1)
    sum(
        (f * torch.tensor([[1.0], [-2.0], [3.0], [-1.0]])).sum() for f in (logits.fun, logits.dir) if f is not None
    ).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in D.parameters())
    Adam(lr=0.01, betas=(0.0, 0.99)).build(D).step()
    if isinstance(head.conditioning, Projection) or head == Head():
        moved = (vectors(y) - before).abs()
        times = 2 if isinstance(head.conditioning, Projection) else 1  # w0 and V[y]
        assert moved.max().item() <= times * 0.01 / math.sqrt(8) * 1.01
        assert moved.max().item() >= 0.5 * 0.01 / math.sqrt(8)


def test_a_learned_scale_needs_stored_vectors():
    with pytest.raises(
        ValueError, match=r"head.scale=learned trains the lengths .*=MappedProjection\(.*Set head.scale=norm"
    ):
        Head(MappedProjection(), san=True, scale="learned")


# ---- published files -------------------------------------------------------------------------------------


def test_published_arguments():
    """Both published forms; names that are unknown, and values that we lack, are refused."""
    size = {"img_resolution": 16, "img_channels": 1, "c_dim": 0}
    nested = size | {
        "z_dim": 8,
        "w_dim": 8,
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": {"channel_base": 128, "channel_max": 8, "num_fp16_res": 4},
    }
    flat = {k: v for k, v in nested.items() if k != "synthesis_kwargs"} | nested["synthesis_kwargs"]
    state = small_g().build(ImageSpec(16, 1)).state_dict()
    a, b = network("stylegan2/G", nested, state), network("stylegan2/G", flat, state)
    assert (a.synthesis.b8.conv0.clamp, b.synthesis.b8.conv0.clamp) == (None, 256)
    z = torch.randn(2, 8)
    assert not a.training
    assert torch.equal(a(z), b(z))
    for change, message in (
        ({"synthesis_kwargs": {"swish": 1}}, "synthesis_kwargs has an unknown argument swish=1; known: activation"),
        ({"mapping_kwargs": {"activation": "relu"}}, "only activation='lrelu' is supported"),
        (
            {"mapping_kwargs": {"num_layers": 3}},
            "not fit the arguments of stylegan2/G: it has no mapping.fc2.weight",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            network("stylegan2/G", nested | change, state)
    with pytest.raises(ValueError, match="must have 'img_resolution', got"):
        network("stylegan2/G", {"z_dim": 8}, state)
    with pytest.raises(ValueError, match="unknown kind of network 'stylegan2/E'; known: stylegan2/G"):
        network("stylegan2/E", nested, state)
    D = size | {"channel_base": 128, "channel_max": 8}
    weights = {
        k.replace("body.", "").replace("head.conditioning.linear", "b4.out"): v
        for k, v in Head().build(small_d().build, ImageSpec(16, 1)).state_dict().items()
    }
    clamps = [network(kind, D, weights).net.body.b16.conv1.clamp for kind in ("stylegan2/D", "stylegan3/D")]
    assert clamps == [None, 256]


# ---- in the loop -----------------------------------------------------------------------------------------


def small_run(tmp_path, **changes):
    """A config on a folder of images of 16x16 pixels in two classes, and their folder."""
    folder = tmp_path / "images"
    if not folder.exists():
        noise = np.random.default_rng(0)
        for i in range(16):
            path = folder / str(i % 2) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    fields = {
        "data": Images(path=str(folder)),
        "generator": small_g(),
        "discriminator": small_d(),
        "head": Head(MappedProjection(layers=2)),
        "loss": NonSaturating(),
        "terms": (R1(every=2),),
        "g_optim": Adam(lr=0.0025, betas=(0.0, 0.99)),
        "d_optim": Adam(lr=0.0025, betas=(0.0, 0.99)),
        "batch_size": 8,
        "total_kimg": 0.048,
        "report": Report(log_kimg=0.008, snapshot_kimg=0.016),
    }
    return TrainConfig(**fields | changes)


def test_a_run_trains_and_resumes_bit_for_bit(tmp_path):
    """Styles, noise and w_avg included; the average of G copies w_avg, and its file gives the same images."""
    cfg = small_run(tmp_path)
    assert_resumes(cfg, tmp_path)
    G, ema = (saved(tmp_path / "whole", name) for name in ("G", "ema"))
    assert G["mapping.w_avg"].abs().max() > 0
    assert torch.equal(G["mapping.w_avg"], ema["mapping.w_avg"])
    assert not torch.equal(G["synthesis.b8.conv0.weight"], ema["synthesis.b8.conv0.weight"])
    run = Generator.from_pretrained(tmp_path / "whole")
    z, y = torch.randn(3, 8), torch.tensor([0, 1, 0])
    again = cfg.generator.build(ImageSpec(16, 3, 2)).eval()
    again.load_state_dict(ema)
    with torch.no_grad():
        assert_close(run.net(z, y), again(z, y))


def test_an_update_in_pieces(tmp_path):
    """Without chance in G and groups in D, two pieces make the update of one; w_avg moves."""
    found = []
    for micro_batch in (None, 4):
        fields = {
            "generator": small_g(mixing=0.0, noise=False),
            "discriminator": small_d(group_channels=0),
            "compute": Compute(micro_batch=micro_batch),
        }
        gan = GAN.build(small_run(tmp_path, **fields), ImageSpec(16, 3, 2))
        images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        real = Batch(images, torch.arange(8) % 2)
        d_step(gan, real, 0)
        before = gan.G.mapping.w_avg.clone()
        g_step(gan, real, 0)
        found.append({n: p for n, p in gan.G.named_parameters() if "synthesis" in n})
        assert (gan.G.mapping.w_avg - before).abs().max() > 0
    for name, p in found[0].items():
        assert_close(found[1][name], p, atol=2e-4, rtol=1e-3, msg=name)


def test_the_average_of_styles_is_of_all_processes(tmp_path):
    """Two processes with half of the batch each, of different sizes, move w_avg as one with all of it."""
    z = torch.randn(6, 8)

    def work(rank):
        M = small_g().build(ImageSpec(16)).mapping
        torch.manual_seed(0)
        for p in M.parameters():
            nn.init.normal_(p)
        M(z[:4] if rank == 0 else z[4:])
        return M.w_avg

    first, second = on_two_processes(work, tmp_path / "store")
    torch.manual_seed(0)
    M = small_g().build(ImageSpec(16)).mapping
    torch.manual_seed(0)
    for p in M.parameters():
        nn.init.normal_(p)
    M(z)
    assert torch.equal(first, second)
    assert_close(first, M.w_avg)


def test_the_plain_form_computes_the_same_updates():
    """The benchmark compares equal functions: zeros inserted and one convolution per image, beside ours."""
    weights = []
    for form in (nullcontext, plain):
        with form():
            gan = GAN.build(small_run_without_data(), ImageSpec(16, 3, 2))
            real = Batch(
                torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])
            )
            torch.manual_seed(0)
            stats = d_step(gan, real, 0) | g_step(gan, real, 0)
            weights.append(stats)
    for name, value in weights[0].items():
        assert_close(weights[1][name], value, atol=1e-5, rtol=1e-4, msg=name)


def small_run_without_data():
    return TrainConfig(
        data=Digits(),
        generator=small_g(architecture="resnet"),
        discriminator=small_d(),
        head=Head(Projection()),
        loss=NonSaturating(),
        terms=(R1(every=1),),
        batch_size=4,
    )
