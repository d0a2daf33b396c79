"""Normalisations against their formulas, image by image and feature by feature."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from equipoise.distributed import apply_gradients, trainable
from equipoise.ema import EMA
from equipoise.heads import Discriminator, Head
from equipoise.models.norms import ConditionalBatchNorm, VirtualBatchNorm, WithReference, norm
from equipoise.normalizers import SpectralNorm
from equipoise.penalties import R1
from equipoise.types import Batch


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
        for name, p in net.named_parameters():
            assert p.grad.isfinite().all(), name
            assert p.grad.abs().sum() > 0, name
        apply_gradients(optimizer)


# ---- torch's own, by name ------------------------------------------------------------------------------------

SHARING = {
    "batch": lambda i, f: [(j, f) for j in range(5)],
    "layer": lambda i, f: [(i, g) for g in range(4)],
    "instance": lambda i, f: [(i, f)],
    "group": lambda i, f: [(i, 2 * (f // 2)), (i, 2 * (f // 2) + 1)],
}


@pytest.mark.parametrize("kind", SHARING)
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


@pytest.mark.parametrize("kind", ["none", *SHARING])
def test_a_norm_starts_with_gains_of_one_and_biases_of_zero(kind):
    parameters = dict(norm(kind, 4, groups=2).named_parameters())
    assert list(parameters) == ([] if kind == "none" else ["weight", "bias"])
    for name, p in parameters.items():
        assert torch.equal(p, torch.full((4,), float(name == "weight")))


def test_no_norm_is_the_identity():
    h = images(2)
    assert norm("none", 4)(h) is h


@pytest.mark.parametrize("kind", ["none", *SHARING])
def test_only_batch_norm_mixes_images(kind):
    """The gradient of an image's output runs through other images under batch norm, and under no other."""
    layer, h = norm(kind, 4, groups=2).double(), images(5).requires_grad_()
    (gradient,) = torch.autograd.grad((layer(h)[0] ** 3).sum(), h)
    assert gradient[0].abs().max() > 1e-3
    assert (gradient[1:].abs().max() > 1e-3).item() == (kind == "batch")


@pytest.mark.parametrize("kind", ["layer", "instance", "group"])
def test_norms_under_r1(kind):
    body = nn.Sequential(nn.Conv2d(1, 4, 3), norm(kind, 4, groups=2), nn.Tanh(), nn.Conv2d(4, 8, 3), nn.Tanh())
    if kind != "layer":
        body[0] = nn.Conv2d(1, 4, 3, bias=False)  # what shifts a whole map is normalised away
    step(Discriminator(body, Head().factory(0)(8)), R1(), torch.randn(6, 1, 6, 6))


def test_unknown_or_impossible_norms_are_refused():
    with pytest.raises(ValueError, match="unknown norm 'spectral'; known: none, batch, layer, instance, group"):
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


# ---- virtual batch norm --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (4, 3, 2)], ids=["vectors", "maps"])
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
