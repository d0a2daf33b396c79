"""Normalisations against their formulas, image by image and feature by feature."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import assert_trained
from processes import on_two_processes
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise.compute.distributed import apply_gradients, rank, trainable, world_size
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import R1, NonSaturating
from equipoise.models import DCGANDiscriminator, DCGANGenerator, Head, Projection
from equipoise.nn import (
    ConditionalBatchNorm,
    Discriminator,
    LinearConditionalBatchNorm,
    SyncBatchNorm,
    VirtualBatchNorm,
    WithReference,
    norm,
)
from equipoise.rules import EMA, Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import ExactSpectralNorm, NoNormalizer, SpectralNorm

two_processes = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, for other threads


def mean_and_variance(values):
    """Of all numbers in `values`, by the definition."""
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


def randomise(layer):
    """Gains and biases that differ, so that neither may be forgotten or exchanged."""
    for p in layer.parameters():
        nn.init.uniform_(p, 0.5, 1.5)
    return layer


def images(n, features=4, size=3):
    return 2 + 3 * torch.randn(n, features, size, size, dtype=torch.float64)


def step(net, penalty, x):
    """One update of D by a penalty and its logits; every parameter must have had a gradient."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with trainable(optimizer):
        value = penalty(lambda x, y: net(x, y).fun, Batch(x), Batch(x))
        assert value.shape == (len(x),)
        (value.mean() + net(x).fun.square().mean()).backward()
        assert_trained(net)
        apply_gradients(optimizer)


# ---- torch's own, by name ------------------------------------------------------------------------------------

SHARING = {
    "batch": lambda i, f: [(j, f) for j in range(5)],
    "sync_batch": lambda i, f: [(j, f) for j in range(5)],
    "layer": lambda i, f: [(i, g) for g in range(4)],
    "instance": lambda i, f: [(i, f)],
    "group": lambda i, f: [(i, 2 * (f // 2)), (i, 2 * (f // 2) + 1)],
}


@loop_over("kind", SHARING)
def test_a_norm_shares_statistics_over_what_it_says(kind):
    """Each value against mean and variance of the maps that share them, collected one by one."""
    h, layer = images(5), randomise(norm(kind, 4, groups=2).double())
    out = layer(h)
    for i in range(5):
        for f in range(4):
            shared = [v for j, g in SHARING[kind](i, f) for v in h[j, g].flatten().tolist()]
            mean, variance = mean_and_variance(shared)
            expected = layer.weight[f] * (h[i, f] - mean) / (variance + 1e-5) ** 0.5 + layer.bias[f]
            assert_close(out[i, f], expected)


@loop_over("kind", ["none", *SHARING])
def test_a_norm_starts_with_gains_of_one_and_biases_of_zero(kind):
    parameters = dict(norm(kind, 4, groups=2).named_parameters())
    assert list(parameters) == ([] if kind == "none" else ["weight", "bias"])
    for name, p in parameters.items():
        assert torch.equal(p, torch.full((4,), float(name == "weight")))


def test_no_norm_is_the_identity():
    h = images(2)
    assert norm("none", 4)(h) is h


@loop_over("kind", ["none", *SHARING])
def test_only_batch_norm_mixes_images(kind):
    """The gradient of an image's output runs through other images under batch norm, and under no other."""
    layer, h = norm(kind, 4, groups=2).double(), images(5).requires_grad_()
    (gradient,) = torch.autograd.grad((layer(h)[0] ** 3).sum(), h)
    assert gradient[0].abs().max() > 1e-3
    assert (gradient[1:].abs().max() > 1e-3).item() == (kind in ("batch", "sync_batch"))


@loop_over("kind", ["layer", "instance", "group"])
def test_norms_under_r1(kind):
    body = nn.Sequential(nn.Conv2d(1, 4, 3), norm(kind, 4, groups=2), nn.Tanh(), nn.Conv2d(4, 8, 3), nn.Tanh())
    if kind != "layer":
        body[0] = nn.Conv2d(1, 4, 3, bias=False)  # what shifts a whole map is normalised away
    step(Discriminator(body, Head().factory(0)(8)), R1(), torch.randn(6, 1, 6, 6))


def test_unknown_or_impossible_norms_are_refused():
    with pytest.raises(ValueError, match="unknown norm 'spectral'; known: none, batch, sync_batch, layer, inst"):
        norm("spectral", 4)
    with pytest.raises(ValueError, match="groups=32 does not divide 48 features"):
        norm("group", 48)


# ---- conditional batch norm ----------------------------------------------------------------------------------


def test_conditional_batch_norm_is_batch_norm_with_an_affine_map_per_class():
    """One set of statistics over the batch, whatever the classes in it; the affine map alone is the class's."""
    layer, h, y = randomise(ConditionalBatchNorm(4, 3).double()), images(6), torch.tensor([0, 2, 2, 0, 2, 0])
    reference = nn.BatchNorm2d(4).double()
    for training in (True, False):
        layer.train(training)
        reference.train(training)
        out = layer(h, y)
        for i, c in enumerate(y):
            before = reference.running_mean.clone(), reference.running_var.clone()
            with torch.no_grad():
                reference.weight.copy_(layer.gain[c])
                reference.bias.copy_(layer.bias[c])
                assert_close(out[i], reference(h)[i])
            if i > 0:  # statistics move once per forward of ours
                reference.running_mean, reference.running_var = before
        assert_close(layer.norm.running_mean, reference.running_mean)
        assert_close(layer.norm.running_var, reference.running_var)


def test_conditional_batch_norm_starts_as_batch_norm():
    layer, h = ConditionalBatchNorm(4, 3).double(), images(6)
    assert torch.equal(layer.gain, torch.ones(3, 4, dtype=torch.float64))
    assert torch.equal(layer.bias, torch.zeros(3, 4, dtype=torch.float64))
    expected = F.batch_norm(h, None, None, training=True)
    assert_close(layer(h, torch.tensor([0, 1, 2, 0, 1, 2])), expected)


def test_a_class_trains_its_own_gain_and_bias():
    layer = ConditionalBatchNorm(4, 3).double()
    (layer(images(4), torch.tensor([2, 0, 2, 0])) ** 3).sum().backward()
    for table in (layer.gain, layer.bias):
        assert (table.grad.abs().sum(1) > 0).tolist() == [True, False, True]


def test_spectral_norm_leaves_the_gains_alone():
    net = nn.ModuleList([nn.Conv2d(4, 4, 1), ConditionalBatchNorm(4, 3)])
    SpectralNorm()(net)
    assert torch.equal(net[1].gain, torch.ones(3, 4))


def test_conditional_batch_norm_needs_a_label_that_is_a_class():
    layer, h = ConditionalBatchNorm(4, 3), torch.randn(2, 4, 3, 3)
    with pytest.raises(ValueError, match="conditioned on the class"):
        layer(h, None)
    for wrong in (3, -1):  # -1 must not be read as the last class
        with pytest.raises(IndexError, match="out of range"):
            layer(h, torch.tensor([0, wrong]))


@loop_over("training", [True, False], ids=["training", "eval"])
def test_linear_conditional_batch_norm_image_by_image(training):
    """Statistics of the batch, then a gain and a bias that are linear in the image's own vector."""
    layer, h, c = LinearConditionalBatchNorm(4, 3).double(), images(6), torch.randn(6, 3, dtype=torch.float64)
    layer(3 * images(6) - 1, c)  # so that the running averages are not the batch's
    layer.train(training)
    V, U = layer.gain.weight.tolist(), layer.bias.weight.tolist()
    average = [t.tolist() for t in (layer.norm.running_mean, layer.norm.running_var)]
    out = layer(h, c)
    for f in range(4):
        own = mean_and_variance(h[:, f].flatten().tolist())
        mean, variance = own if training else (average[0][f], average[1][f])
        for i in range(6):
            gain = 1 + sum(v * float(value) for v, value in zip(V[f], c[i], strict=True))
            bias = sum(u * float(value) for u, value in zip(U[f], c[i], strict=True))
            assert_close(out[i, f], gain * (h[i, f] - mean) / (variance + 1e-5) ** 0.5 + bias)


def test_linear_conditional_batch_norm_of_zero_weights_is_batch_norm():
    """Gains are around 1, not around 0."""
    layer, reference = LinearConditionalBatchNorm(4, 3).double(), nn.BatchNorm2d(4).double()
    for p in layer.parameters():
        nn.init.zeros_(p)
    for training in (True, False):
        h, c = images(6), torch.randn(6, 3, dtype=torch.float64)
        assert_close(layer.train(training)(h, c), reference.train(training)(h), rtol=1e-12, atol=1e-12)
        assert torch.equal(layer.norm.running_var, reference.running_var)


def test_spectral_norm_reaches_the_linear_maps_of_a_condition():
    """As in BigGAN: V and U are normalised, the 1 beside V c is not."""
    layer = LinearConditionalBatchNorm(4, 3)
    ExactSpectralNorm()(layer)
    for linear in (layer.gain, layer.bias):
        assert torch.linalg.matrix_norm(linear.weight, 2).item() == pytest.approx(1, abs=1e-5)
    h = images(6).float()
    assert_close(layer(h, torch.zeros(6, 3)), F.batch_norm(h, None, None, training=True))


# ---- batch norm of several processes -------------------------------------------------------------------------

SHARES = [slice(0, 2), slice(2, 6)]
"""Images of each process; the first has fewer, so a mean of their means is not the mean."""


def through(layer, h, weights):
    """Outputs, gradients, second derivatives and running averages, of a batch or of one process's share."""
    h = h.clone().requires_grad_()
    out = layer(h)
    of = [h, *layer.parameters()]
    first = torch.autograd.grad((weights * out**3).sum(), of, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), of)
    made = {
        "out": out,
        "gradients": torch.stack([first[0], second[0]], dim=1),
        "parameters": torch.cat([torch.zeros(1), *first[1:], *second[1:]]),
        "in eval": layer.eval()(h),
    }
    return {name: value.detach() for name, value in made.items()} | {"buffers": dict(layer.named_buffers())}


@two_processes
@pytest.mark.parametrize("fields", [{}, {"affine": False}, {"momentum": None}], ids=str)
def test_two_processes_normalise_as_one(fields, tmp_path):
    """Each its share, the derivatives of all of them summed; twice differentiated, as R1 does."""
    layer = randomise(SyncBatchNorm(4, **fields).double())
    h, weights = images(6), torch.randn(6, 4, 3, 3, dtype=torch.float64)
    plain = nn.BatchNorm2d(4, **fields).double()
    plain.load_state_dict(layer.state_dict())

    def work(rank):
        layer(10 + h[SHARES[rank]])  # so that the running averages are no longer what they start with
        return through(layer, h[SHARES[rank]], weights[SHARES[rank]])

    found = on_two_processes(work, tmp_path / "ranks")
    plain(10 + h)
    wanted = through(plain, h, weights)
    for own, share in zip(found, SHARES, strict=True):
        for name in ("out", "gradients", "in eval"):
            assert_close(own[name], wanted[name][share], rtol=1e-9, atol=1e-9)
        assert_close(own["buffers"], wanted["buffers"], rtol=1e-12, atol=1e-12)
    total = found[0]["parameters"] + found[1]["parameters"]
    assert_close(total, wanted["parameters"], rtol=1e-9, atol=1e-9)
    assert all(torch.equal(b, found[1]["buffers"][n]) for n, b in found[0]["buffers"].items())
    apart = plain.train()(h[SHARES[0]])
    assert (apart - wanted["out"][SHARES[0]]).abs().max() > 0.1  # what each would make by itself


@two_processes
def test_two_processes_far_from_zero_and_in_bfloat16(tmp_path):
    """In float32, E[h²] - E[h]² would be noise here; statistics in bfloat16 would be off by tenths."""
    far, rough = torch.randn(6, 4, 5, 5) + 3000, (10 + torch.randn(6, 4, 5, 5)).bfloat16()

    def work(rank):
        return [SyncBatchNorm(4)(h[SHARES[rank]]).detach() for h in (far, rough)]

    found = [torch.cat(parts) for parts in zip(*on_two_processes(work, tmp_path / "ranks"), strict=True)]
    exact = [nn.BatchNorm2d(4).double()(h.double()) for h in (far, rough)]
    assert_close(found[0], exact[0].float(), rtol=0, atol=2e-3)
    assert found[1].dtype == torch.bfloat16
    assert_close(found[1].double(), exact[1], rtol=2**-8, atol=1e-4)


def test_sync_batch_norm_of_one_process_is_batch_norm():
    layer, plain, h = SyncBatchNorm(4), nn.BatchNorm2d(4), images(5).float()
    for training in (True, False):
        assert torch.equal(layer.train(training)(h), plain.train(training)(h))
    assert layer.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(b, plain.get_buffer(n)) for n, b in layer.named_buffers())


def synced(kind):
    """Batch norm in both players, in G also with gains that depend on class and z, and a penalty's second derivative.

    Not SAN and no hinge: their gradients jump where rounding decides.
    """
    return replace(
        recipe(),
        generator=DCGANGenerator(z_dim=7, width=4, norm=kind, class_input="shared", skip_z=True, embed=3),
        discriminator=DCGANDiscriminator(width=4, norm=kind),
        head=Head(Projection()),
        loss=NonSaturating(),
        terms=(R1(gamma=1.0, every=2),),
        d_normalizer=NoNormalizer(),
        d_optim=Adam(lr=1e-3, eps=1e-3),  # an element whose gradient is rounding noise stays put
        g_optim=Adam(lr=1e-3, eps=1e-3),
    )


def after_three_iterations(kind):
    """Weights and buffers of both players; each process gets its half of the images."""
    gan = GAN.build(synced(kind), ImageSpec(28, channels=1, num_classes=10))
    images = torch.rand(3, 8, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mine = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    for i, x in enumerate(images):
        batch = Batch(x[mine], torch.arange(8)[mine])
        d_step(gan, batch, 8 * i)
        g_step(gan, batch, 8 * i)
    return {f"{name}.{n}": t for name, net in (("G", gan.G), ("D", gan.D)) for n, t in net.state_dict().items()}


@two_processes
@pytest.mark.filterwarnings("ignore:D has batch norm .* under R1")
def test_training_on_two_processes_is_that_on_one(tmp_path):
    """No factor is lost between the statistics of all processes and the mean of gradients over them."""
    apart = {}
    for kind in ("batch", "sync_batch"):
        one = after_three_iterations(kind)
        two, other = on_two_processes(lambda _, kind=kind: after_three_iterations(kind), tmp_path / kind)
        assert all(torch.equal(two[n], other[n]) for n in one if kind == "sync_batch" or "running" not in n)
        apart[kind] = max((one[n] - two[n]).abs().max().item() for n in one)
    assert apart["sync_batch"] < 1e-5
    assert apart["batch"] > 1e-3


# ---- virtual batch norm --------------------------------------------------------------------------------------


@loop_over("shape", [(4,), (4, 3, 2)], ids=["vectors", "maps"])
def test_vbn_normalises_by_the_reference_and_the_image_itself(shape):
    """Statistics of R + 1 images: each image's own counts once, as much as one image of the reference."""
    layer = randomise(VirtualBatchNorm(4).double())
    reference, x = (1 + 2 * torch.randn(n, *shape, dtype=torch.float64) for n in (5, 3))
    x = x * 4 - 3  # so that an image's own share matters
    out = WithReference(layer, reference)(x)
    assert out.shape == x.shape
    for i in range(3):
        for f in range(4):
            union = torch.cat([reference[:, f].flatten(), x[i, f].flatten()])
            mean, variance = mean_and_variance(union.tolist())
            expected = layer.gain[f] * (x[i, f] - mean) / (variance + 1e-5) ** 0.5 + layer.bias[f]
            assert_close(out[i, f], expected)


def deep(reference, width=6):
    """Several layers of virtual batch norm, in maps and in vectors."""
    net = nn.Sequential(
        *(nn.Conv2d(1, width, 3), VirtualBatchNorm(width), nn.LeakyReLU(0.2)),
        *(nn.Conv2d(width, width, 3), VirtualBatchNorm(width), nn.LeakyReLU(0.2), nn.Flatten()),
        *(nn.Linear(width * 2 * 2, width), VirtualBatchNorm(width), nn.Tanh()),
    )
    return WithReference(net, reference)


def test_a_deep_reference_is_normalised_by_itself():
    """What the second layer sees of the reference has passed the first, with batch norm's formula on the reference."""
    reference, x = torch.randn(5, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    first, second = (randomise(VirtualBatchNorm(3).double()) for _ in range(2))
    out = WithReference(nn.Sequential(first, nn.Tanh(), second), reference)(x)
    inside = F.batch_norm(reference, None, None, first.gain, first.bias, training=True).tanh()
    between = WithReference(first, reference)(x).tanh()
    assert_close(out, WithReference(second, inside)(between))


def test_vbn_does_not_depend_on_batch_mates():
    net, x = deep(torch.randn(8, 1, 6, 6)), torch.randn(5, 1, 6, 6)
    out = net(x)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert_close(net(x[order]), out[order], rtol=0, atol=1e-6)
    mates = torch.cat([x[:1], 100 * torch.randn(6, 1, 6, 6)])
    assert_close(net(mates)[:1], out[:1], rtol=0, atol=1e-6)
    assert_close(net(x[:1]), out[:1], rtol=0, atol=1e-6)
    assert_close(net.eval()(x), out, rtol=0, atol=1e-6)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[0].sum(), x)
    assert gradient[0].abs().sum() > 1e-3
    assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))


def test_vbn_depends_on_its_reference():
    x, first = torch.randn(5, 1, 6, 6), deep(torch.randn(8, 1, 6, 6))
    other = WithReference(copy.deepcopy(first.net), 3 * torch.randn(8, 1, 6, 6))
    assert (first(x) - other(x)).abs().max() > 0.01


def test_a_reference_is_seen_with_the_weights_of_the_moment():
    """Scaling the layer before VBN changes nothing, because the reference is scaled too; kept statistics would not."""
    net, x = deep(torch.randn(8, 1, 6, 6)).double(), torch.randn(5, 1, 6, 6, dtype=torch.float64)
    before = net(x)
    with torch.no_grad():
        net.net[0].weight *= 50
        net.net[0].bias *= 50
    assert_close(net(x), before, rtol=0, atol=1e-4)


def test_vbn_of_values_far_from_zero():
    """In float32, E[h²] - E[h]² would be noise here."""
    reference, x = torch.randn(64, 4, 5, 5) + 3000, torch.randn(3, 4, 5, 5) + 3000
    layer = VirtualBatchNorm(4)
    exact = WithReference(copy.deepcopy(layer).double(), reference.double())(x.double())
    assert_close(WithReference(layer, reference)(x), exact.float(), rtol=0, atol=2e-3)


def test_the_reference_is_remembered():
    """By checkpoints, copies and the average of the weights."""
    net, x = deep(torch.randn(8, 1, 6, 6)), torch.randn(5, 1, 6, 6)
    restored = deep(torch.randn(8, 1, 6, 6))
    assert (restored(x) - net(x)).abs().max() > 0.01
    restored.load_state_dict(net.state_dict())
    average = EMA(restored, halflife_kimg=0)
    average.update(net, 1000, 100)
    for other in (restored, copy.deepcopy(net), average.model):
        assert torch.equal(other(x), net(x))


def test_the_reference_is_a_copy():
    reference = torch.randn(8, 1, 6, 6)
    net = deep(reference)
    kept = reference.clone()
    reference.zero_()
    assert torch.equal(net.reference, kept)


def test_gradients_reach_every_layer_under_r1():
    D = Discriminator(deep(torch.randn(8, 1, 6, 6)), Head().factory(0)(6))
    for i in (0, 3, 6):
        D.body.net[i].bias = None  # what shifts a feature of every image is normalised away
    step(D, R1(), torch.randn(4, 1, 6, 6))


def test_vbn_is_twice_differentiable_through_the_statistics_of_the_reference():
    """By numerical derivatives, of an input that reaches both the reference's rows and the images'."""
    layer, weights = VirtualBatchNorm(2).double(), torch.randn(3, 2, dtype=torch.float64)
    reference, x = torch.randn(4, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)

    def through(weights):
        layer.references = 4
        return layer(torch.cat([reference, x]) @ weights)

    assert torch.autograd.gradcheck(through, weights.requires_grad_())
    assert torch.autograd.gradgradcheck(through, weights)


def test_vbn_without_its_reference_is_refused():
    net = deep(torch.randn(8, 1, 6, 6))
    x = torch.randn(9, 1, 6, 6)
    net(x)
    for part in (net.net, VirtualBatchNorm(1)):  # also after the network was called with it
        with pytest.raises(ValueError, match=r"has no reference batch: wrap .* net = WithReference\(net, images\)"):
            part(x)
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        net(torch.randn(9, 1, 7, 7))
    with pytest.raises(ValueError, match="has no reference batch"):  # also after a call that failed
        net.net(x)


def test_useless_references_are_refused():
    with pytest.raises(ValueError, match="Linear has no VirtualBatchNorm layer"):
        WithReference(nn.Linear(3, 3), torch.randn(8, 3))
    with pytest.raises(ValueError, match="a reference of 1 has no variance"):
        WithReference(VirtualBatchNorm(3), torch.randn(1, 3))


def test_vbn_of_bfloat16_is_exact_but_for_its_rounding():
    """Statistics in bfloat16 would be off by tenths here."""
    reference, x = (10 + torch.randn(n, 4, 5, 5).bfloat16() for n in (8, 3))
    out = WithReference(VirtualBatchNorm(4), reference)(x)
    assert out.dtype == torch.bfloat16
    exact = WithReference(VirtualBatchNorm(4).double(), reference.double())(x.double())
    assert_close(out.double(), exact, rtol=2**-8, atol=1e-4)
