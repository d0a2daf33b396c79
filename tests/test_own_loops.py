"""The pieces in somebody's own loop: what they return, take, and answer."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close

import equipoise
from equipoise import (
    ADA,
    EMA,
    R1,
    R2,
    Batch,
    GradientPenalty,
    Hinge,
    Logits,
    SpectralNorm,
    discriminator_loss,
    losses,
    sanify,
    weights,
)
from equipoise.losses import Dragan, Drift, GANLoss

LOSSES = [c for c in map(vars(losses).get, losses.__all__) if inspect.isclass(c) and issubclass(c, GANLoss)]
UNPAIRED = [c for c in LOSSES if not inspect.isabstract(c) and not c().paired]
NORMALIZERS = [
    c
    for c in map(vars(weights).get, weights.__all__)
    if dataclasses.is_dataclass(c) and issubclass(c, weights.Normalizer)
]


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Softplus(), nn.Linear(8, 3))


@loop_over("normalizer", NORMALIZERS, ids=lambda c: c.__name__)
def test_a_normalizer_returns_the_network(normalizer):
    D = net()
    assert normalizer()(D) is D


def test_sanify_keeps_the_type():
    assert type(sanify(net())) is nn.Sequential


@loop_over("loss", UNPAIRED, ids=lambda c: c.__name__)
@loop_over("san", [False, True])
def test_an_unpaired_loss_takes_other_numbers_of_real_and_generated_images(loss, san):
    """Each has a mean of its own: three copies of the generated images change nothing."""
    torch.manual_seed(1)
    real, fake = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (6, 2))
    as_output = (lambda t: Logits(t, t.detach().clone().requires_grad_())) if san else Logits
    few = discriminator_loss(loss(), as_output(real), as_output(fake))
    alike = discriminator_loss(loss(), as_output(real), as_output(fake.repeat(3, 1)))
    assert_close(few, alike, rtol=1e-12, atol=1e-12)
    assert_close(
        torch.autograd.grad(few, [real, fake]), torch.autograd.grad(alike, [real, fake]), rtol=1e-12, atol=1e-12
    )


def test_a_paired_loss_takes_pairs_alone():
    with pytest.raises(ValueError, match="same shape"):
        discriminator_loss(losses.RelativisticPairing(), torch.zeros(4), torch.zeros(3))


def test_other_logits_of_an_image_are_refused():
    with pytest.raises(ValueError, match="same shape"):
        discriminator_loss(Hinge(), torch.zeros(4, 2), torch.zeros(3, 1))


@loop_over("penalty", [R1, R2, GradientPenalty, Dragan, Drift], ids=lambda c: c.__name__)
def test_penalties_take_plain_tensors(penalty):
    D, real, fake = net(), torch.randn(5, 3, 2, 2), torch.randn(5, 3, 2, 2)

    def values(*images):
        torch.manual_seed(0)
        return penalty()(lambda x, y: D(x), *images)

    assert_close(values(real, fake), values(Batch(real), Batch(fake)), rtol=0, atol=0)
    if penalty in (R1, Dragan, Drift):
        assert_close(values(real), values(real, fake), rtol=0, atol=0)
    else:
        with pytest.raises(ValueError, match="looks at generated images, and was given none"):
            values(real)


@loop_over("ask", [lambda logits: logits.mean(), lambda logits: logits.backward(), lambda logits: logits.shape])
def test_logits_say_where_the_tensor_is(ask):
    with pytest.raises(AttributeError, match=r"Take D\(x\)\.fun, the logits, or give D\(x\) to discriminator_loss"):
        ask(Logits(torch.zeros(2, 1)))
    with pytest.raises(AttributeError, match=r"'Logits' object has no attribute 'nothing'"):
        Logits(torch.zeros(2, 1)).nothing  # noqa: B018


def test_an_average_is_called_like_its_network():
    G, z = nn.Linear(3, 2), torch.randn(4, 3)
    assert_close(EMA(G)(z), G(z), rtol=0, atol=0)


def test_settings_of_an_augmentation_say_how_to_build_it():
    with pytest.raises(TypeError, match=r"are settings. Build the augmentation once, augment = ADA\(.*\)\.build\(\)"):
        ADA()(torch.zeros(2, 3, 8, 8))


def test_the_package_shows_public_names_only():
    assert dir(equipoise) == sorted(equipoise.__all__)
    assert {"Augment", "Constraint", "GANLoss", "Normalizer", "Penalty", "Term", "sanify"} <= set(dir(equipoise))
    assert SpectralNorm in NORMALIZERS
