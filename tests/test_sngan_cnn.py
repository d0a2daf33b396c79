"""SN-GAN's standard CNN against networks written out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from loops import loop_over
from networks import assert_each_moves_its_class, assert_trained, copy_in_order, count, spread
from torch import nn
from torch.testing import assert_close

from equipoise.core.types import ImageSpec
from equipoise.models import Head, NoConditioning, Projection, SNGANDiscriminator, SNGANGenerator
from equipoise.nn import SyncBatchNorm
from equipoise.weights import SpectralNorm, normalizers, spectral_norms


def generator(resolution=32, channels=3, *, conditional=False, **fields):
    return SNGANGenerator(**{"z_dim": 6, "width": 4} | fields).build(ImageSpec(resolution, channels, 10 * conditional))


def discriminator(resolution=32, channels=3, head=Head(), width=4):  # noqa: B008  (a frozen value)
    return SNGANDiscriminator(width=width).build(ImageSpec(resolution, channels, 10), head.factory(10))


def up(a, b):
    return nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()


@loop_over(("resolution", "base"), [(32, 4), (48, 6)])
def test_the_generator_is_the_published_network(resolution, base):
    """Table 3a: dense to base² x 8w, three transposed convolutions to 4w, 2w, w, a 3x3 convolution."""
    reference = nn.Sequential(
        *(nn.Linear(6, 32 * base**2, bias=False), nn.Unflatten(1, (32, base, base)), nn.BatchNorm2d(32), nn.ReLU()),
        *(*up(32, 16), *up(16, 8), *up(8, 4)),
        *(nn.Conv2d(4, 3, 3, 1, 1), nn.Tanh()),
    )
    G, z = spread(generator(resolution), ndim=2), torch.randn(5, 6)
    assert_close(G(z), copy_in_order(G, reference)(z))


@loop_over(("resolution", "base"), [(32, 4), (48, 6)])
def test_the_discriminator_is_the_published_network(resolution, base):
    """Table 3b: 3x3 w, 4x4 w, 3x3 2w, 4x4 2w, 3x3 4w, 4x4 4w, 3x3 8w, with stride 1 and 2 in turn, LeakyReLU 0.1."""
    layers, c_in = [], 3
    for kernel, c in [(3, 4), (4, 4), (3, 8), (4, 8), (3, 16), (4, 16), (3, 32)]:
        layers += [nn.Conv2d(c_in, c, kernel, kernel - 2, 1), nn.LeakyReLU(0.1)]
        c_in = c
    reference = nn.Sequential(*layers, nn.Conv2d(32, 1, base, bias=False), nn.Flatten())
    D, x = spread(discriminator(resolution), ndim=2), torch.randn(5, 3, resolution, resolution)
    assert_close(D(x).fun, copy_in_order(D, reference)(x))
    assert D(x).fun.shape == (5, 1)


def test_parameters():
    """Those of toshas/torch-fidelity's examples/sngan_cifar10.py: G 3,805,699, D 2,935,873.

    There are biases before batch norm, 512 + 256 + 128 + 64, and one in D's last layer, which no head here has.
    """
    spec = ImageSpec(32, 3)
    with torch.device("meta"):
        G, D = SNGANGenerator().build(spec), SNGANDiscriminator().build(spec, Head().factory(0))
    dense, deconvolutions = 128 * 512 * 16, 16 * (512 * 256 + 256 * 128 + 128 * 64)
    wanted = dense + deconvolutions + 2 * (512 + 256 + 128 + 64) + 64 * 3 * 9 + 3
    assert count(G) == wanted == 3_805_699 - (512 + 256 + 128 + 64)
    wanted = 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 16 * (64**2 + 128**2 + 256**2) + 16 * 512
    wanted += 2 * (64 + 128 + 256) + 512
    assert count(D) == wanted == 2_935_873 - 1


@loop_over("resolution", [8, 28, 32, 48, 64, 128])
@loop_over("channels", [1, 3])
@loop_over("san", [False, True], ids=["plain", "san"])
def test_shapes(resolution, channels, san):
    y = torch.tensor([4, 2, 9])
    for conditional in (False, True):
        x = generator(resolution, channels, width=2, conditional=conditional)(torch.randn(3, 6), y)
        assert x.shape == (3, channels, resolution, resolution)
        assert x.abs().max() <= 1
        head = Head(Projection() if conditional else NoConditioning(), san=san)
        logits = discriminator(resolution, channels, head, width=2)(x, y)
        assert logits.fun.shape == (3, 1)
        assert (logits.dir is not None) == san


def test_impossible_sizes_are_refused_with_the_nearest():
    for build in (generator, discriminator):
        with pytest.raises(ValueError, match=r"50 is none of these numbers.*data.resolution=48 or data.resolution=56"):
            build(50)


def test_initial_weights():
    """N(0, 0.02²), gains of batch norm N(1, 0.02²), biases 0."""
    gains = []
    for net in (generator(width=16, z_dim=50), discriminator(width=16).body):
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                assert (p == 0).all(), name
            elif p.ndim > 1:
                assert p.std().item() == pytest.approx(0.02, rel=4 / p.numel() ** 0.5), name
            else:
                gains.append(p)
    gains = torch.cat(gains)
    assert gains.mean().item() == pytest.approx(1, abs=0.01)
    assert gains.std().item() == pytest.approx(0.02, rel=0.25)


def test_every_batch_norm_reads_the_class():
    G = spread(generator(conditional=True), ndim=2).eval()
    tables = {n: p for n, p in G.named_parameters() if p.ndim == 2 and p.shape[0] == 10}
    assert len(tables) == 4 * 2
    assert_each_moves_its_class(G, tables)
    with pytest.raises(ValueError, match=r"call it with labels, G\(z, y\)"):
        G(torch.randn(4, 6))


def test_statistics_of_all_processes():
    norms = [m for m in generator(norm="sync_batch", conditional=True).modules() if isinstance(m, nn.BatchNorm2d)]
    assert [type(m) for m in norms] == [SyncBatchNorm] * 4


@loop_over("conditional", [False, True])
def test_every_weight_is_trained_also_through_a_gradient(conditional):
    G, D = spread(generator(conditional=conditional), ndim=2), spread(discriminator(head=Head(Projection())), ndim=2)
    y = torch.arange(10)
    x = G(torch.randn(10, 6), y)
    logits = D(x, y).fun
    (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    (logits.square().mean() + slope.square().mean()).backward()
    assert_trained(G, D, least=1e-6)


def test_spectral_norm_reaches_every_layer_and_can_be_removed():
    D, x = discriminator(), torch.randn(4, 3, 32, 32)
    SpectralNorm()(D)
    for _ in range(40):
        D(x)
    sigmas = spectral_norms(D)
    assert len(sigmas) == 8
    for name, sigma in sigmas.items():
        assert sigma.item() == pytest.approx(1, abs=0.03), name
    wanted = D.eval()(x).fun
    assert_close(copy.deepcopy(D)(x).fun, wanted)
    assert_close(normalizers.remove(D)(x).fun, wanted)


def test_bfloat16_agrees_with_float32():
    G, D, z = spread(generator(width=8), ndim=2), spread(discriminator(width=8), ndim=2), torch.randn(8, 6)
    x = G(z)
    fun = D(x).fun
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(G(z).float(), x, rtol=0, atol=0.1)
        assert_close(D(x).fun, fun, rtol=0, atol=0.03 * fun.abs().max().item())
