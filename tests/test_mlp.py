"""Multilayer perceptrons against a table of their layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from networks import assert_trained, count, of_g
from torch.testing import assert_close

from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import R1
from equipoise.models import Head, MLPDiscriminator, MLPGenerator, NoConditioning, Projection

DIGITS = ImageSpec(resolution=28, channels=1, num_classes=10)
COLOUR = ImageSpec(resolution=16, channels=3, num_classes=5)
specs = loop_over("spec", [DIGITS, COLOUR, ImageSpec(resolution=7)], ids=["28", "16x3", "7x3"])


def test_parameters_of_the_published_size():
    """Four hidden layers of 512, with biases; the head has none."""
    inner = 3 * (512 * 512 + 512)
    assert count(MLPGenerator(z_dim=64).build(of_g(DIGITS, False))) == (64 * 512 + 512) + inner + (512 * 784 + 784)
    conditional = MLPGenerator(z_dim=64).build(DIGITS)
    assert count(conditional) == (74 * 512 + 512) + inner + (512 * 784 + 784)
    D = MLPDiscriminator().build(COLOUR, Head().factory(0))
    assert count(D) == (3 * 16 * 16 * 512 + 512) + inner + 512
    assert count(MLPDiscriminator(width=8, depth=1).build(DIGITS, Head().factory(0))) == (784 * 8 + 8) + 8


@loop_over("conditional", [False, True], ids=["unconditional", "conditional"])
def test_the_generator_is_relus_then_tanh(conditional):
    G = MLPGenerator(z_dim=6, width=16, depth=3).build(of_g(COLOUR, conditional))
    z, y = torch.randn(4, 6), torch.tensor([0, 4, 2, 2])
    h = torch.cat([z, torch.eye(5)[y]], dim=1) if conditional else z
    *hidden, last = zip(*[iter(G.parameters())] * 2, strict=True)  # weight, bias of each layer
    assert len(hidden) == 3
    for weight, bias in hidden:
        h = F.relu(h @ weight.T + bias)
    expected = torch.tanh(h @ last[0].T + last[1]).reshape(4, 3, 16, 16)
    assert_close(G(z, y), expected)


def test_the_discriminator_is_relus_then_the_head():
    D, x = MLPDiscriminator(width=16, depth=3).build(COLOUR, Head().factory(0)), torch.randn(4, 3, 16, 16)
    *hidden, w = D.parameters()
    h = x.reshape(4, -1)
    for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
        h = F.relu(h @ weight.T + bias)
    assert len(hidden) == 6
    assert_close(D(x).fun, h @ w.T)


@specs
@loop_over("conditional", [False, True], ids=["unconditional", "conditional"])
def test_any_size_and_every_weight_is_trained(spec, conditional):
    conditional = conditional and spec.num_classes > 0
    head = Head(Projection() if conditional else NoConditioning(), san=True)
    G, D = (
        MLPGenerator(width=32).build(of_g(spec, conditional)),
        MLPDiscriminator(width=32).build(spec, head.factory(spec.num_classes)),
    )
    z = torch.randn(20, 100, requires_grad=True)
    y = torch.arange(20) % spec.num_classes if conditional else None
    x = G(z, y)
    assert x.shape == (20, spec.channels, spec.resolution, spec.resolution)
    assert x.abs().max() <= 1
    logits = D(x, y)
    assert logits.fun.shape == (20, 1)
    penalty = R1()(lambda x, y: D(x, y).fun, Batch(x.detach(), y), Batch(x.detach(), y)).mean()
    (logits.fun.sum() + logits.dir.sum() + penalty).backward()
    assert (z.grad.abs().sum(1) > 0).all()
    assert_trained(G, D)


def test_a_conditional_generator_needs_labels():
    G = MLPGenerator(width=4).build(DIGITS)
    with pytest.raises(ValueError, match=r"conditioned on the class: call it with labels, G\(z, y\)"):
        G(torch.randn(2, 100))


@loop_over("field", ["width", "depth", "z_dim"])
def test_empty_networks_are_refused(field):
    with pytest.raises(ValueError, match=rf"MLPGenerator\.{field} takes a whole number of 1 or more, got 0"):
        MLPGenerator(**{field: 0})
