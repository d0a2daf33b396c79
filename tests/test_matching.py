"""Feature matching compares means: closed forms, invariances that a comparison of pairs lacks, and its gradient."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.schedules import Linear
from equipoise.losses import FeatureMatching
from equipoise.models import Head
from equipoise.nn import Discriminator

matching = FeatureMatching()


def features(n: int, *shape: int) -> torch.Tensor:
    return torch.randn(n, *shape or (5,), dtype=torch.float64)


@loop_over("shape", [(5,), (3, 2, 4)], ids=["vectors", "maps"])
def test_the_value_is_the_squared_distance_of_the_means(shape):
    """Written out, over all pairs of images of a side: ‖(1/N) Σ x_i - (1/M) Σ y_j‖²."""
    real, fake = features(6, *shape), features(4, *shape)
    x, y = real.flatten(1), fake.flatten(1)
    within_real = sum(x[i] @ x[j] for i in range(6) for j in range(6)) / 36
    within_fake = sum(y[i] @ y[j] for i in range(4) for j in range(4)) / 16
    between = sum(x[i] @ y[j] for i in range(6) for j in range(4)) / 24
    value = matching(real, fake)
    assert value.shape == ()
    assert_close(value, within_real + within_fake - 2 * between)
    assert matching(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[0.0, 2.0]])) == 2**2 + 3**2


def test_the_order_and_the_spread_of_images_do_not_matter():
    """A mean over pairs, (1/N) Σ ‖x_i - y_i‖², changes with both, and is least where every image is the mean image."""
    real, fake = features(8), features(8)
    value = matching(real, fake)
    assert_close(matching(real[torch.randperm(8)], fake), value)
    assert_close(matching(real, fake.flip(0)), value)
    assert_close(matching(real.repeat(3, 1), fake), value)  # nor do copies
    assert_close(matching(real, fake.repeat(2, 1)), value)
    shift = features(8)
    assert_close(matching(real, fake + shift - shift.mean(0)), value)  # only the mean does
    assert matching(real, real.flip(0)).item() == pytest.approx(0, abs=1e-24)


def test_the_gradient_is_that_of_the_formula_and_of_finite_differences():
    real, fake = features(6), features(4).requires_grad_()
    (gradient,) = torch.autograd.grad(matching(real, fake), fake)
    assert_close(gradient, (2 / 4 * (fake.mean(0) - real.mean(0))).expand(4, 5).detach())
    assert torch.autograd.gradcheck(lambda f: matching(real, f), fake)


def test_both_sides_have_a_gradient():
    """A penalty on both players needs that of the real features, which are D's."""
    real, fake = features(3).requires_grad_(), features(3).requires_grad_()
    matching(real, fake).backward()
    assert_close(real.grad, -fake.grad)
    assert fake.grad.abs().sum() > 0


@loop_over("san", [False, True], ids=["plain", "SAN"])
def test_g_alone_is_trained_through_the_features_of_a_discriminator(san):
    """And comes to match them, without ever fooling D."""
    D = Discriminator(nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2)), Head(san=san).factory(0)(16))
    D.requires_grad_(False)
    G = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(G.parameters(), lr=0.05)
    real, z = torch.randn(256, 2) + torch.tensor([3.0, -2.0]), torch.randn(256, 3)
    start = matching(D(real).features, D(G(z)).features).item()
    for _ in range(150):
        optimizer.zero_grad()
        matching(D(real).features, D(G(z)).features).backward()
        optimizer.step()
    assert matching(D(real).features, D(G(z)).features).item() < 0.01 * start
    assert (G(z).mean(0) - real.mean(0)).norm() < 0.2 * real.mean(0).norm()


def test_bfloat16_features_are_averaged_in_float32():
    """In bfloat16 the mean of 1001 values near 1 has 3 digits, and the difference of two such means none."""
    real, fake = (1 + 0.01 * torch.randn(1001, 4)).bfloat16(), (1 + 0.01 * torch.randn(1001, 4)).bfloat16()
    value = matching(real, fake)
    assert value.dtype == torch.float32
    wanted = (real.double().mean(0) - fake.double().mean(0)).square().sum()
    assert_close(value.double(), wanted, rtol=1e-2, atol=0)


def test_what_cannot_be_compared_is_refused():
    for real, fake in ((None, features(2)), (features(2), None), (None, None)):
        with pytest.raises(ValueError, match=r"D returned no features.*equipoise\.nn\.heads\.Discriminator"):
            matching(real, fake)
    for real, fake in ((features(2, 5), features(2, 4)), (features(2, 5, 1, 1), features(2, 5)), (features(3)[0],) * 2):
        with pytest.raises(ValueError, match=r"the same features .* got \("):
            matching(real, fake)


def test_as_a_config():
    assert repr(FeatureMatching()) == "FeatureMatching(strength=1.0, adversarial=True)"
    assert FeatureMatching(strength=0.3).weight(0) == 0.3
    assert FeatureMatching(strength=Linear(start=1.0, end=0.0, kimg=1)).weight(250) == 0.75
    with pytest.raises(ValueError, match="strength"):
        FeatureMatching(strength=-1.0)
