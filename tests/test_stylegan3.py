"""StyleGAN3-T and -R beside numbers of the published code, what its averages follow, and how its images move."""

from __future__ import annotations

import json
import math
from dataclasses import replace

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
from tiny import recipe
from torch.testing import assert_close

from equipoise.config import override
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import Images
from equipoise.generate import Generator
from equipoise.models import Head, StyleGAN2Discriminator, StyleGAN3Generator
from equipoise.models.published import network, stylegan3_settings
from equipoise.models.stylegan3 import stages
from equipoise.nn import FourierInput, user_transform
from equipoise.rules import Generation, Report
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import NoNormalizer

FILES = ("r_r16", "r_r32_cond", "r_r64", "t_r16", "t_r32_cond", "variants_r32")
LEFT_OUT = [f"out/image_{kind}" for kind in ("update_emas", "mix", "psi0.7_cutoff", "affine")]
"""Of the largest file."""
R = {"channel_base": 65536, "channel_max": 1024, "kernel": 1, "radial": True}


class StyleGAN3(Published):
    """A file of StyleGAN3: G alone."""

    def __init__(self, name):
        super().__init__("stylegan3", name, left_out=LEFT_OUT if name == "r_r64" else ())
        self.G = self.network("G")
        self.z, self.c = self["in/z"], self["in/c"]

    def layers(self):
        return [self.G.synthesis.get_submodule(layer["name"]) for layer in self.cfg["layers"]]


def small(**fields):
    """Five layers, 8 channels at most."""
    few = {"z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8, "layers": 4, "num_critical": 1, "margin": 4}
    return StyleGAN3Generator(**few | fields)


# ---- the derived parameters ------------------------------------------------------------------------------


def assert_derived(layers, stored, filters):
    """Every number of the published table of layers; filters to 2e-7. `filters`: layer and name -> published one."""
    assert len(layers) == len(stored)
    for i, (ours, theirs) in enumerate(zip(layers, stored, strict=True)):
        b, a = ours.before, ours.after
        found = {
            "name": f"L{i}_{a.size}_{a.channels}",
            "is_torgb": ours.makes_image,
            "in_channels": b.channels,
            "out_channels": a.channels,
            "in_size": b.size,
            "out_size": a.size,
            "in_sampling_rate": b.rate,
            "out_sampling_rate": a.rate,
            "tmp_sampling_rate": ours.rate,
            "in_cutoff": pytest.approx(b.cutoff, rel=1e-12),
            "out_cutoff": pytest.approx(a.cutoff, rel=1e-12),
            "in_half_width": pytest.approx(b.half_width, rel=1e-12),
            "out_half_width": pytest.approx(a.half_width, rel=1e-12),
            "up_factor": ours.up,
            "down_factor": ours.down,
            "up_taps": ours.up_taps,
            "down_taps": ours.down_taps,
            "down_radial": ours.radial,
            "padding": [*ours.padding, *ours.padding],
            "conv_kernel": ours.kernel,
        }
        assert {key: value for key, value in theirs.items() if key != "is_critically_sampled"} == found
        for kind, taps in zip(("up_filter", "down_filter"), ours.filters(), strict=True):
            wanted = filters(theirs["name"], kind)
            assert (taps is None) == (wanted is None), (theirs["name"], kind)
            if taps is not None:
                assert_close(taps, torch.as_tensor(wanted), rtol=0, atol=2e-7)


def test_the_layers_of_all_published_configurations():
    arrays = numbers("stylegan/sg3_filters.npz")
    configs = json.loads(str(arrays["config"]))["configs"]
    assert len(configs) == 12
    for name, stored in configs.items():
        cfg = StyleGAN3Generator(**(R if name[0] == "r" else {}))
        layers = stages(cfg, ImageSpec(int(name[1:]), 3))
        assert_derived(layers, stored["layers"], lambda layer, kind, of=name: arrays.get(f"{of}/{layer}/{kind}"))
        first, given = layers[0].before, stored["input"]
        assert (first.channels, [first.size] * 2) == (given["channels"], given["size"])
        assert (first.rate, first.cutoff) == (given["sampling_rate"], given["bandwidth"])


@pytest.mark.parametrize("name", FILES)
def test_the_layers_of_each_file(name):
    """With other arguments; the filters are those stored with the weights."""
    p = StyleGAN3(name)
    cfg, spec = stylegan3_settings(p.cfg["G_kwargs"])
    layers = stages(cfg, spec)
    assert_derived(layers, p.cfg["layers"], lambda layer, kind: p.tensors.get(f"G/synthesis.{layer}.{kind}"))


SIZES = """
t 32 32768 37242887 2420
t 64 32768 37242887 2432
t 128 32768 32308211 2444
t 256 32768 27946821 2456
t 512 32768 24348207 2468
t 1024 32768 21787855 2480
t 32 16384 37242887 2420
t 64 16384 31775243 2432
t 128 16384 26509373 2444
t 256 16384 22795131 2456
t 512 16384 19892843 2468
t 1024 16384 17619137 2480
r 32 32768 23627783 5540
r 64 32768 23627783 5552
r 128 32768 20841389 5564
r 256 32768 18291075 5576
r 512 32768 16140282 5588
r 1024 32768 14567839 5600
r 32 16384 23627783 5540
r 64 16384 20551628 5552
r 128 16384 17494628 5564
r 256 16384 15254253 5576
r 512 16384 13483235 5588
r 1024 16384 12091401 5600
"""
"""Configuration, pixels, channel_base of T (twice as much in R); parameters of the synthesis, and numbers in G's
buffers. Counted on the published code."""


def test_sizes_of_the_published_configurations():
    for line in SIZES.split("\n")[1:-1]:
        kind, *rest = line.split()
        pixels, base, of_synthesis, of_buffers = map(int, rest)
        fields = R | {"channel_base": 2 * base} if kind == "r" else {"channel_base": base}
        with torch.device("meta"):
            G = StyleGAN3Generator(**fields).build(ImageSpec(pixels, 3))
        assert (count(G.mapping), count(G.synthesis)) == (525312, of_synthesis), line
        assert sum(b.numel() for b in G.buffers()) == of_buffers, line
        assert G.num_ws == 16


# ---- published numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_published_networks(name):
    """Styles, truncation, the input, images, mixed styles, images moved by the user, averages, the gradient by w."""
    p = StyleGAN3(name)
    G, z, c, cut = p.G, p.z, p.c, p.cfg["mix_cutoff"]
    psi, cutoff = p.cfg["truncation"].values()
    with torch.no_grad():
        p.is_near("out/w", w := G.mapping(z, c))
        p.is_near("out/w_psi0.7", G.mapping(z, c, psi))
        p.is_near("out/w_psi0.7_cutoff", truncated := G.mapping(z, c, psi, cutoff))
        p.is_near("out/input", G.synthesis.input(w[:, 0]))
        p.is_near("out/image", image := G.synthesis(w))
        assert torch.equal(G(z, c), image)
        p.is_near("out/image_psi0.7_cutoff", G.synthesis(truncated))
        p.is_near("out/image_mix", G.synthesis(torch.cat([w[:, :cut], G.mapping(p["in/z2"], c)[:, cut:]], 1)))
        before = G.synthesis.input.transform.clone()
        for motion in ("translate", "rotate", "affine"):
            G.synthesis.input.transform.copy_(p[f"in/transform_{motion}"])
            p.is_near(f"out/image_{motion}", G.synthesis(w))
        G.synthesis.input.transform.copy_(before)
    w = p["out/w"].clone().requires_grad_()
    image = G.synthesis(w)
    cosines = torch.cos(torch.arange(image.numel()) + 0.1)
    p.is_near("out/w_grad", torch.autograd.grad((image.flatten() * cosines).sum(), w)[0], rtol=5e-5)
    with torch.no_grad():
        p.is_near("out/image_update_emas", G.synthesis(G.mapping(z, c, update=True), update=True))
    p.is_near("out/w_avg_after", G.mapping.w_avg)
    p.is_near("out/magnitude_ema_after", torch.stack([layer.magnitude_ema for layer in p.layers()]))


@pytest.mark.parametrize("name", [name for name in FILES if name != "r_r64"])
def test_the_published_image_in_float64(name):
    """To 1e-8, and to 1e-13 once weights and styles have a mean square of 1, as the authors' code makes them.

    Demodulation undoes that, but for the 1e-8 under its root.
    """
    p = StyleGAN3(name)
    G, z, c = p.G.double(), p.z.double(), p.c.double()
    with torch.no_grad():
        p.is_near("out/image_float64", G(z, c), rtol=1e-8)
        styles = G.mapping(z, c).unbind(1)[1:]
        for layer, w in list(zip(p.layers(), styles, strict=True))[:-1]:
            layer.weight.mul_(layer.weight.square().mean((1, 2, 3), keepdim=True).rsqrt())
            rms = layer.affine(w).square().mean().sqrt()
            layer.affine.weight.div_(rms)
            layer.affine.bias.div_(rms)
        p.is_near("out/image_float64", G(z, c), rtol=1e-13)


@pytest.mark.parametrize("name", FILES)
def test_the_published_losses_and_their_gradients(name):
    """Of G through D, of D, and of R1, with the published D on the same file."""
    p = StyleGAN3(name)
    D = network("stylegan3/D", p.cfg["D_kwargs"], p.state("D"))
    real, c_real = p["in/real_uint8"] / 127.5 - 1, p["in/c_real"]

    def has_gradients(phase, net, loss):
        names = [n for n, _ in net.named_parameters()]
        grads = dict(zip(names, torch.autograd.grad(loss, list(net.parameters()), allow_unused=True), strict=True))
        norms, dots = p[f"grad/{phase}/norm"], p[f"grad/{phase}/dot"]
        largest = norms[norms.isfinite()].max().item()
        wanted = p.cfg[f"{phase[0]}_params"]
        assert len(wanted) == len(names) == len(norms)
        for label, norm, dot in zip(wanted, norms, dots, strict=True):
            (ours,) = [n for n in names if n == label or published_name(n) == label]
            g = torch.zeros(1) if grads[ours] is None else grads[ours].double().flatten()
            cosines = torch.cos(torch.arange(len(g), dtype=torch.float64) + 0.1)
            near = {"abs": 1e-4 * largest}
            assert g.norm().item() == pytest.approx(norm.nan_to_num().item(), **near), (phase, label)
            assert (g.double() @ cosines).item() == pytest.approx(dot.nan_to_num().item(), **near), (phase, label)

    fake = p.G(p.z, p.c)
    p.is_near("out/D_fake", fooled := D(fake, p.c))
    p.is_near("loss/Gmain", loss := F.softplus(-fooled))
    has_gradients("Gmain", p.G, loss.mean())
    p.is_near("out/D_real", on_real := D(real, c_real))
    with torch.no_grad():
        shown = p.G.synthesis(p["out/w"], update=True)  # what D is shown moves the averages first
    p.is_near("loss/Dmain", loss := F.softplus(D(shown, p.c)) + F.softplus(-on_real))
    has_gradients("Dmain", D, loss.mean())
    x = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(D(x, c_real).sum(), x, create_graph=True)
    p.is_near("out/D_real_grad", slope)
    p.is_near("loss/r1_penalty", penalty := slope.square().sum((1, 2, 3)))
    has_gradients("Dreg", D, (penalty * p.cfg["r1_gamma"] / 2).mean())


def published_name(ours):
    """The published name of a parameter of D."""
    for prefix in ("net.body.", "net.head.conditioning."):
        if ours.startswith(prefix):
            rest = ours.removeprefix(prefix)
            return f"b4.out.{rest.split('.')[1]}" if rest.split(".")[0] in ("out", "linear") else rest
    return ours


# ---- the averages ----------------------------------------------------------------------------------------


def averages(G):
    return {name: b.clone() for name, b in G.named_buffers() if name.endswith(("w_avg", "magnitude_ema"))}


def moved(G, before):
    return {not torch.equal(b, before[name]) for name, b in averages(G).items()}


def test_averages_follow_training_batches_without_a_graph():
    """And what one says, in either mode; by the batch: β of the old and 1 - β of the mean."""
    G, z = small(w_avg_beta=0.75, magnitude_ema_beta=0.5).build(ImageSpec(16, 1)), torch.randn(4, 8)
    for training, graph, update, wanted in (
        (True, True, None, False),
        (True, False, None, True),
        (False, False, None, False),
        (False, False, True, True),
        (True, False, False, False),
        (True, True, True, True),
    ):
        G.train(training)
        before = averages(G)
        with torch.set_grad_enabled(graph):
            ws = G.mapping(z, update=update)
            G.synthesis(ws, update=update)
        assert moved(G, before) == {wanted}, (training, graph, update)
    with torch.no_grad():
        before = averages(G)
        w = G.eval().mapping(z, update=True)[:, 0]
        assert_close(G.mapping.w_avg, 0.75 * before["mapping.w_avg"] + 0.25 * w.mean(0))
        h, first = G.synthesis.input(w), G.synthesis.L0_24_8
        G.synthesis(G.mapping(z), update=True)
        assert_close(first.magnitude_ema, 0.5 * before["synthesis.L0_24_8.magnitude_ema"] + 0.5 * h.square().mean())


def test_the_magnitude_divides_under_the_root():
    G, w = small().build(ImageSpec(16, 1)).eval(), torch.randn(2, 6, 8)
    last = G.synthesis.get_submodule(G.synthesis.names[-1])
    with torch.no_grad():
        image = G.synthesis(w)
        last.magnitude_ema.fill_(16.0)
        assert_close(G.synthesis(w), image / 4)


def test_recomputed_layers_are_the_plain_ones():
    """Images, gradients and averages, with an update and a graph at once."""
    torch.manual_seed(0)
    plain, z = small(channel_max=4).build(ImageSpec(16, 3)), torch.randn(3, 8)
    again = small(channel_max=4, checkpoint=True).build(ImageSpec(16, 3))
    again.load_state_dict(plain.state_dict())
    images = [G.synthesis(G.mapping(z, update=True), update=True) for G in (plain, again)]
    assert torch.equal(*images)
    for image in images:
        image.square().sum().backward()
    for (name, b), (_, other) in zip(plain.named_buffers(), again.named_buffers(), strict=True):
        assert torch.equal(b, other), name
    for (name, a), b in zip(plain.named_parameters(), again.parameters(), strict=True):
        assert_close(a.grad, b.grad, msg=lambda m, name=name: f"{name}: {m}")


def test_averages_of_two_processes_are_those_of_their_images(tmp_path):
    """With unequal numbers of images."""
    torch.manual_seed(0)
    G, z = small().build(ImageSpec(16, 1)), torch.randn(5, 8)
    start = {name: t.clone() for name, t in G.state_dict().items()}

    def work(rank):
        G.load_state_dict(start)
        with torch.no_grad():
            G(z[2:] if rank else z[:2])
        return averages(G)

    first, second = on_two_processes(work, tmp_path / "averages")
    with torch.no_grad():
        G(z)
    for name, wanted in averages(G).items():
        assert torch.equal(first[name], second[name]), name
        assert_close(first[name], wanted)


def run(**changes):
    nets = {"generator": small(), "discriminator": StyleGAN2Discriminator(channel_base=64, channel_max=4)}
    return override(recipe(), nets | {"head": Head(), "d_normalizer": NoNormalizer()} | changes)


def test_training_moves_the_averages_in_the_update_of_d_alone():
    """Once for each batch that it is shown."""
    gan = GAN.build(run(), ImageSpec(16, 3))
    real, steps = Batch(torch.randn(4, 3, 16, 16)), []
    gan.G.mapping.register_forward_hook(lambda net, args, out: steps.append(torch.is_grad_enabled()))
    before = averages(gan.G)
    d_step(gan, real, 0)
    assert moved(gan.G, before) == {True}
    before = averages(gan.G)
    g_step(gan, real, 0)
    assert moved(gan.G, before) == {False}
    assert steps == [False, True]


def test_a_run_resumes_bit_for_bit(tmp_path):
    """Averages included; the average of G copies them, and its file gives the same images."""
    noise = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(16):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    report = Report(log_kimg=0.008, snapshot_kimg=0.016)
    fields = {"data": Images(path=str(tmp_path / "images")), "batch_size": 8, "total_kimg": 0.048, "report": report}
    cfg = run(**fields)
    assert_resumes(cfg, tmp_path)
    G, ema = (saved(tmp_path / "whole", name) for name in ("G", "ema"))
    for name in averages(cfg.generator.build(ImageSpec(16, 3))):
        assert (G[name] != (0 if name == "mapping.w_avg" else 1)).any()
        assert torch.equal(G[name], ema[name]), name
    again, z = cfg.generator.build(ImageSpec(16, 3)).eval(), torch.randn(3, 8)
    again.load_state_dict(ema)
    with torch.no_grad():
        assert_close(Generator.from_pretrained(tmp_path / "whole").net(z), again(z))


def test_reused_images_are_refused():
    with pytest.raises(ValueError, match=r"game.reuse=true and generator=StyleGAN3Generator .* Use game.reuse=false"):
        run(game=Generation(reuse=True))


# ---- moving the images -----------------------------------------------------------------------------------


def test_the_input_moves_with_the_users_transform():
    """By whole samples to the right and down, and by a quarter turn counter-clockwise, exactly; then both, in order."""
    torch.manual_seed(0)
    net, w = FourierInput(4, 6, size=12, sampling_rate=16.0, bandwidth=2.0).double(), torch.randn(2, 4).double()
    with torch.no_grad():
        plain = net(w)

        def moved(*args):
            net.transform.copy_(user_transform(*args))
            return net(w)

        right = moved((3 / 16, 0.0))
        assert_close(right[..., 3:], plain[..., :-3], rtol=1e-6, atol=1e-6)
        down = moved((0.0, 3 / 16))
        assert_close(down[..., 3:, :], plain[..., :-3, :], rtol=1e-6, atol=1e-6)
        turned = plain.rot90(dims=(2, 3))  # counter-clockwise
        assert_close(moved((0.0, 0.0), math.pi / 2), turned, rtol=1e-6, atol=1e-6)
        assert_close(moved((3 / 16, 0.0), math.pi / 2)[..., 3:], turned[..., :-3], rtol=1e-6, atol=1e-6)


def test_the_input_moves_with_w():
    """Four numbers of w turn by their first two, whatever their length, and move by the others, before the turn."""
    torch.manual_seed(0)
    net, w = FourierInput(4, 6, size=12, sampling_rate=16.0, bandwidth=2.0).double(), torch.zeros(1, 4).double()

    def moved(*t):
        net.affine.bias.copy_(torch.tensor(t))
        return net(w)

    with torch.no_grad():
        plain = moved(1.0, 0.0, 0.0, 0.0)
        assert_close(moved(1.0, 0.0, 3 / 16, 0.0)[..., 3:], plain[..., :-3])
        assert_close(moved(5.0, 0.0, 0.0, 15 / 16)[..., 3:, :], plain[..., :-3, :])
        assert_close(moved(0.0, 2.0, 0.0, 0.0), plain.rot90(dims=(2, 3)))


def test_frequencies_fill_the_disc_evenly_and_fade_above_it():
    torch.manual_seed(0)
    net = FourierInput(4, 20000, size=2, sampling_rate=16.0, bandwidth=2.0)
    radii = net.freqs.norm(dim=1)
    assert radii.max() <= 2
    for share in (0.1, 0.5, 0.9):  # the disc of half the area holds half of them
        assert (radii < 2 * math.sqrt(share)).float().mean().item() == pytest.approx(share, abs=0.02)
    assert net.phases.min() >= -0.5
    assert net.phases.max() <= 0.5
    small = FourierInput(4, 5, size=8, sampling_rate=16.0, bandwidth=2.0)
    with torch.no_grad():
        small.freqs.copy_(torch.tensor([[1.0, 0], [2, 0], [5, 0], [8, 0], [9, 0]]))
        small.weight.copy_(torch.eye(5) / small.gain)
        small.phases.fill_(0.25)
        heights = small(torch.zeros(1, 4))[0].abs().amax((1, 2)) / torch.cos(
            2 * math.pi * small.freqs[:, :1] * (torch.arange(8) - 3.5) / 16
        ).abs().amax(1)
    assert_close(heights, torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_images_move_with_the_input():
    """A translation by whole pixels moves the images of T; a quarter turn turns those of R, but not those of T."""
    torch.manual_seed(0)
    spec, z = ImageSpec(32, 3), torch.randn(2, 8)
    few = {"z_dim": 8, "w_dim": 8, "channel_base": 512, "channel_max": 16, "layers": 6}
    errors = {}
    for name, fields in (("T", {}), ("R", {"kernel": 1, "radial": True})):
        G = StyleGAN3Generator(**few | fields).build(spec).eval()
        with torch.no_grad():
            for layer in G.synthesis.names:
                G.synthesis.get_submodule(layer).affine.weight.mul_(3)
            plain = G(z)
            G.synthesis.input.transform.copy_(user_transform((4 / 32, 0.0)))
            shifted = G(z)[..., 4:] - plain[..., :-4]
            G.synthesis.input.transform.copy_(user_transform(angle=math.pi / 2))
            turned = G(z) - plain.rot90(dims=(2, 3))
        errors[name] = [(e.std() / plain.std()).item() for e in (shifted, turned)]
    assert errors["T"][0] < 0.05
    assert errors["R"][0] < 0.05
    assert errors["R"][1] < 1e-3 < 0.3 < errors["T"][1]


# ---- settings --------------------------------------------------------------------------------------------


def test_settings_that_are_refused():
    for size, near in ((28, 32), (8, 16), (2048, 1024), (96, 64)):
        with pytest.raises(ValueError, match=rf"must be 16, 32, 64, .*, and {size} is not.*data.resolution={near}"):
            small().build(ImageSpec(size))
    for fields, message in (
        ({"num_critical": 4}, "all layers would be critically sampled.*Set num_critical to 3 or less"),
        ({"first_cutoff": 5.0}, "Set first_stopband above first_cutoff"),
        ({"last_stopband_rel": 1.0}, "and last_stopband_rel above 1"),
        ({"kernel": 5}, "kernel"),
        ({"lrelu_upsampling": 3}, "lrelu_upsampling"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**fields)
    with pytest.raises(ValueError, match=r"images of 16 pixels hold frequencies up to 8 only\. Set first_cutoff below"):
        small(first_cutoff=9.0, first_stopband=10.0).build(ImageSpec(16))
    state = small().build(ImageSpec(16, 1)).state_dict()
    with pytest.raises(ValueError, match=r"arguments has an unknown argument swirl=1; known: .*margin_size"):
        network("stylegan3/G", {"img_resolution": 16, "img_channels": 1, "swirl": 1}, state)


def test_every_weight_learns_and_the_first_image_is_of_middling_size():
    torch.manual_seed(0)
    cfg = replace(StyleGAN3Generator(channel_base=512, channel_max=32), output_scale=1.0)
    G = cfg.build(ImageSpec(16, 3, num_classes=3))
    x = G(torch.randn(4, 512), torch.tensor([0, 1, 2, 0]))
    assert 0.2 < x.std() < 5
    (x * torch.randn_like(x)).sum().backward()
    for name, p in G.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name


def test_autocast_is_near():
    p = StyleGAN3("r_r16")
    with torch.no_grad():
        image = p.G(p.z, p.c)
        with torch.autocast("cpu", torch.bfloat16):
            low = p.G(p.z, p.c)
    assert low.dtype == torch.float32
    assert_close(low, image, rtol=0, atol=0.05 * image.abs().max().item())
