"""The moving average of the generator: half-lives counted in images, buffers copied."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from equipoise.rules import EMA, EMAConfig
from equipoise.weights import SpectralNorm


def constant(value):
    """A layer whose weights all are `value`, in float64."""
    layer = nn.Linear(2, 3).double()
    for p in layer.parameters():
        nn.init.constant_(p, value)
    return layer


def weight(ema):
    (value,) = {p.unique().item() for p in ema.model.parameters()}
    return value


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.floats(0.01, 100))
def test_after_a_half_life_the_average_is_halfway(steps, halflife_kimg):
    """However the images are split into updates: 0 -> 1 - 2^(-images / half-life)."""
    ema, source = EMA(constant(0.0), halflife_kimg=halflife_kimg, rampup=None), constant(1.0)
    nimg = 0
    for n in steps:
        nimg += n
        ema.update(source, nimg, n)
    assert weight(ema) == pytest.approx(1 - 0.5 ** (nimg / (halflife_kimg * 1000)), rel=1e-9)


def test_half_life_in_the_middle_of_training():
    ema, source = EMA(constant(0.0), halflife_kimg=1.0), constant(1.0)
    for i in range(10):
        ema.update(source, 500_000 + 100 * (i + 1), 100)  # 1,000 images = one half-life, far past the ramp
    assert weight(ema) == pytest.approx(0.5, rel=1e-9)


def test_rampup_shortens_the_half_life_of_early_training():
    """After n images the half-life is at most rampup · n, so an update of as many images goes halfway."""
    ema = EMA(constant(0.0), halflife_kimg=10.0, rampup=0.05)
    ema.update(constant(1.0), 2_000, 100)
    assert weight(ema) == pytest.approx(0.5, rel=1e-9)
    slow = EMA(constant(0.0), halflife_kimg=10.0, rampup=None)
    slow.update(constant(1.0), 2_000, 100)
    assert weight(slow) == pytest.approx(1 - 0.5**0.01, rel=1e-9)
    past = EMA(constant(0.0), halflife_kimg=10.0, rampup=0.05)
    past.update(constant(1.0), 400_000, 10_000)  # 0.05 · 400 kimg is longer than 10 kimg
    assert weight(past) == pytest.approx(0.5, rel=1e-9)


def test_half_life_zero_is_a_copy():
    for rampup in (0.05, None):
        ema, source = EMA(constant(0.0), halflife_kimg=0, rampup=rampup), constant(0.3)
        ema.update(source, 64, 64)
        assert weight(ema) == 0.3


def test_the_average_starts_at_the_source():
    source = nn.Linear(2, 3)
    ema = EMA(source)
    assert all(torch.equal(a, b) for a, b in zip(ema.model.parameters(), source.parameters(), strict=True))


def test_buffers_are_copied_not_averaged():
    """Running means, integer counters and singular vectors."""
    source = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    SpectralNorm()(source)
    ema = EMA(source, halflife_kimg=10.0, rampup=None)
    for _ in range(3):
        source(torch.randn(8, 1, 6, 6) + 2)
    ema.update(source, 100, 8)
    for (name, copied), (_, b) in zip(ema.model.named_buffers(), source.named_buffers(), strict=True):
        assert torch.equal(copied, b), name
    assert ema.model[1].num_batches_tracked == 3
    assert ema.model[1].running_mean.abs().max() > 0.01
    assert ema.model[1].running_mean is not source[1].running_mean


def test_works_on_a_parametrised_network_that_has_trained():
    """Where the old `nn.utils.spectral_norm` cannot be deep-copied after a step."""
    source = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    SpectralNorm()(source)
    optimizer = torch.optim.SGD(source.parameters(), lr=0.1)
    x = torch.randn(8, 3)
    source(x).square().sum().backward()
    optimizer.step()
    ema = EMA(source, halflife_kimg=0)
    source(x).square().sum().backward()
    optimizer.step()
    ema.update(source, 8, 8)
    source.eval()
    assert_close(ema.model(x), source(x), rtol=0, atol=0)
    assert_close(copy.deepcopy(ema).model(x), source(x), rtol=0, atol=0)


def test_the_model_is_in_eval_mode_and_not_trained():
    source = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    ema = EMA(source)
    ema.update(source, 8, 8)
    assert not any(m.training for m in ema.model.modules())
    assert not any(p.requires_grad for p in ema.model.parameters())
    assert source.training
    assert all(p.requires_grad for p in source.parameters())


def test_a_network_without_weights():
    source = nn.BatchNorm1d(2, affine=False)
    ema = EMA(source)
    source(torch.randn(4, 2))
    ema.update(source, 4, 4)
    assert torch.equal(ema.model.running_mean, source.running_mean)


def test_settings():
    ema = EMAConfig(halflife_kimg=3.0, rampup=None).build(nn.Linear(2, 2))
    assert (ema.halflife_kimg, ema.rampup) == (3.0, None)
    for wrong in ({"halflife_kimg": -1.0}, {"rampup": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EMAConfig(**wrong)
