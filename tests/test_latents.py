"""Truncated normals against scipy, paths between latents against rotations."""

import math

import numpy as np
import pytest
import torch
from loops import loop_over
from scipy import stats
from torch.testing import assert_close

from equipoise.core.latents import lerp, slerp, truncate, truncated_normal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- truncation ------------------------------------------------------------------------------------------


@loop_over("t", [0.02, 0.3, 1.0, 2.0, 4.0])
def test_components_have_the_truncated_normal_distribution(t):
    z = truncated_normal((400, 50), t, generator())
    assert z.shape == (400, 50)
    assert z.dtype == torch.float32
    assert z.abs().max() <= t
    assert stats.kstest(z.flatten().double().numpy(), stats.truncnorm(-t, t).cdf).pvalue > 0.01


def test_it_is_the_distribution_of_drawing_again_and_not_of_a_smaller_normal():
    t, rng = 0.8, np.random.default_rng(0)
    again = rng.standard_normal(60_000)
    again = again[np.abs(again) <= t]
    z = truncated_normal((30_000,), t, generator()).numpy()
    assert stats.ks_2samp(z, again).pvalue > 0.01
    for wrong in (
        t * rng.standard_normal(30_000),
        rng.uniform(-t, t, 30_000),
        np.clip(rng.standard_normal(30_000), -t, t),
    ):
        assert stats.ks_2samp(wrong, again).pvalue < 1e-6


def test_components_are_independent():
    z = truncated_normal((20_000, 4), 0.5, generator())
    correlation = torch.corrcoef(torch.cat([z, z.square()], dim=1).T) - torch.eye(8)
    assert correlation.abs().max() < 0.03  # four standard errors


def test_a_threshold_beyond_all_components_changes_nothing():
    z = torch.randn(1000, generator=generator())
    assert_close(truncate(z, math.inf), z, rtol=1e-6, atol=1e-7)
    assert_close(truncate(z, 9.0), z, rtol=1e-6, atol=1e-7)
    assert truncate(torch.tensor([-30.0, 30.0]), 12.0).tolist() == [-12, 12]  # the tails' probability rounds to 1


def test_components_keep_their_sign_and_order_and_shrink_with_the_threshold():
    z = torch.linspace(-5, 5, 101, dtype=torch.float64)
    rows = torch.stack([truncate(z, t) for t in (0.1, 0.5, 1.0, 2.0, math.inf)])
    assert (rows.diff(dim=1) > 0).all()
    assert (rows.abs().diff(dim=0) >= 0).all()
    assert_close(rows, -rows.flip(1))
    quantiles = torch.from_numpy(stats.truncnorm(-1, 1).ppf(stats.norm.cdf(z.numpy())))
    assert_close(rows[2], quantiles, rtol=1e-8, atol=1e-10)


@loop_over("threshold", [0, -1.0, math.nan])
def test_bad_thresholds(threshold):
    with pytest.raises(ValueError, match=r"expected a truncation threshold above 0, such as 0\.5"):
        truncated_normal((3,), threshold, generator())


# ---- interpolation ---------------------------------------------------------------------------------------


def plane(angle):
    """Points of the circle, in some plane of five dimensions."""
    basis = torch.linalg.qr(torch.randn(5, 2, generator=generator(), dtype=torch.float64)).Q
    return torch.stack([angle.cos(), angle.sin()], dim=-1) @ basis.T


@loop_over("omega", [1e-12, 1e-6, 0.01, 1.0, math.pi / 2, 3.0, math.pi - 1e-4])
def test_the_spherical_path_turns_at_constant_speed(omega):
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    ends = plane(torch.tensor([0.3, 0.3 + omega], dtype=torch.float64))
    assert_close(slerp(ends[0], ends[1], t), plane(0.3 + omega * t), rtol=0, atol=1e-9)


@loop_over("path", [slerp, lerp])
def test_paths_start_and_end_exactly_at_their_ends_for_many_pairs_at_once(path):
    a, b = torch.randn(2, 7, 100, generator=generator())
    assert torch.equal(path(a, b, 0.0), a)
    assert torch.equal(path(a, b, 1.0), b)
    t = torch.rand(7, generator=generator())
    one_by_one = torch.stack([path(*pair, t=share) for *pair, share in zip(a, b, t, strict=True)])
    assert_close(path(a, b, t), one_by_one)


def test_the_linear_path_loses_norm_half_way_and_the_spherical_one_does_not():
    a, b = torch.randn(2, 4096, generator=generator())
    assert lerp(a, b, 0.5).norm() / a.norm() == pytest.approx(math.sqrt(0.5), rel=0.03)
    assert slerp(a, b, 0.5).norm() / a.norm() == pytest.approx(1, rel=0.03)


def test_parallel_ends_of_any_length_are_joined_by_a_line():
    a = torch.randn(5, generator=generator(), dtype=torch.float64)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    assert_close(slerp(a, 3 * a, t), lerp(a, 3 * a, t))
    assert_close(slerp(a, a, t), a.expand(5, -1))


def test_ends_without_a_spherical_path():
    a = torch.randn(5, generator=generator())
    with pytest.raises(ValueError, match="the ends are opposite"):
        slerp(a, -2 * a, 0.5)
    with pytest.raises(ValueError, match="one of its ends is 0: take the linear path"):
        slerp(a, torch.zeros(5), 0.5)


def test_an_infinite_threshold_truncates_nothing():
    z = torch.tensor([9.0, -8.0, 0.5])
    assert torch.equal(truncate(z, math.inf), z)
