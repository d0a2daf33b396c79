"""A blur that fades: its weights, its schedule, its gradients, and D behind it as published."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from fixtures import numbers
from reference import SPEC, Reference, Watch, assert_gradients, batch, build, small
from torch.testing import assert_close

from equipoise.augment import ADA, Chain, FadingBlur
from equipoise.config import components
from equipoise.core.grammar import parse
from equipoise.losses import R1
from equipoise.models.published import network
from equipoise.train import d_step


def by_hand(x, sigma):
    """Pixel by pixel in float64: weights 2^-(i² + j²)/sigma², at most 3 sigma away on each axis; zeros outside."""
    x, r = x.double().numpy(), math.floor(3 * sigma)
    out, height, width = np.zeros_like(x), *x.shape[2:]
    steps = range(-r, r + 1)
    total = sum(2.0 ** -((i / sigma) ** 2) for i in steps) ** 2
    for i in steps:
        for j in steps:
            rows, columns = (slice(max(0, -k), min(n, n - k)) for k, n in ((i, height), (j, width)))
            sources = tuple(slice(max(0, k), min(n, n + k)) for k, n in ((i, height), (j, width)))
            if rows.start < rows.stop and columns.start < columns.stop:
                weight = 2.0 ** -((i / sigma) ** 2) * 2.0 ** -((j / sigma) ** 2) / total
                out[:, :, rows, columns] += weight * x[:, :, sources[0], sources[1]]
    return torch.from_numpy(out)


@pytest.mark.parametrize("sigma", [0.34, 0.7, 2.5, 10.0])
def test_it_is_the_convolution(sigma):
    """Base 2, floor(3 sigma), zeros outside; on images smaller than the filter too. Wrong: base e, or its mirror."""
    x = torch.rand(2, 3, 7, 9) * 2 - 1
    found = FadingBlur(sigma=sigma).build()(x)
    assert_close(found.double(), by_hand(x, sigma), rtol=1e-5, atol=1e-6)


def test_it_fades():
    """Sigma falls on a line, to exactly 0. Below a third of a pixel images are untouched."""
    module, x = FadingBlur(sigma=4, kimg=0.1).build(), torch.randn(1, 1, 8, 8)
    for nimg, sigma in ((0, 4.0), (25, 3.0), (75, 1.0), (100, 0.0), (10_000, 0.0), (50, 2.0)):
        module.at(nimg)
        assert module.sigma == pytest.approx(sigma)
        wanted = x.double() if sigma == 0 else by_hand(x, sigma)
        assert_close(module(x).double(), wanted, rtol=1e-5, atol=1e-6)
    module.at(93)  # 0.28 of a pixel
    assert module(x) is x
    assert (FadingBlur().sigma, FadingBlur().kimg) == (10.0, 200.0)
    assert list(module.state_dict()) == []


def test_low_precision_and_text():
    x = torch.randn(1, 1, 8, 8)
    module = FadingBlur(sigma=2.0).build()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), module(x.float()))
    assert module(x.bfloat16()).dtype == torch.float32
    both = Chain((FadingBlur(sigma=2.0), ADA()))
    assert parse(repr(both), components()) == both


def test_gradients_run_through_it_in_the_loss_and_in_r1():
    """D's logit of a blurred image, differentiated to the image itself. Wrong: R1 of D at the blurred image."""
    cfg = small(
        augment=Chain((FadingBlur(sigma=1.5, kimg=1.0), ADA(heuristic="fixed", initial=0.0))),
        terms=(R1(gamma=8.0, every=1),),
    )
    gan, real = build(cfg), batch()
    gan.at(500)
    watch, reference = Watch(gan), Reference(gan)
    d_step(gan, real, 0)
    x = real.x.double().requires_grad_(True)
    blurred, fake = (linear_blur(each, 0.75) for each in (x, reference.images(watch.z[0]).detach()))
    right, fooled = reference.logits(blurred).fun, reference.logits(fake).fun
    (slope,) = torch.autograd.grad(right.sum(), x, create_graph=True)
    loss = torch.nn.functional.softplus(-right).mean() + torch.nn.functional.softplus(fooled).mean()
    total = loss + 4.0 * slope.square().flatten(1).sum(1).mean()
    assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")


def linear_blur(x, sigma):
    """As two matrices."""
    n = SPEC.resolution
    distance = torch.arange(n)[:, None] - torch.arange(n)[None]
    weights = torch.where(distance.abs() <= math.floor(3 * sigma), 2.0 ** -((distance.double() / sigma) ** 2), 0.0)
    weights = weights / sum(
        2.0 ** -((i / sigma) ** 2) for i in range(-math.floor(3 * sigma), math.floor(3 * sigma) + 1)
    )
    return weights @ x @ weights.mT


@pytest.mark.parametrize(
    "name", ["sg3_t_r16", "sg3_r_r16", "sg3_t_r32_cond", "sg3_r_r32_cond", "sg3_r_r64", "sg3_variants_r32"]
)
def test_d_behind_it_is_the_published_one(name):
    arrays = numbers(f"stylegan/{name}.npz")
    config = json.loads(str(arrays["config"]))
    weights = {key[2:]: torch.from_numpy(value) for key, value in arrays.items() if key.startswith("D/")}
    D = network("stylegan3/D", config["D_kwargs"], weights)
    real, c = torch.from_numpy(arrays["in/real_uint8"]) / 127.5 - 1, torch.from_numpy(arrays["in/c_real"])
    plain = D(real, c if c.shape[1] else None)
    assert_close(plain, torch.from_numpy(arrays["out/D_real"]), rtol=1e-4, atol=1e-5)
    for sigma in (3.0, 0.7):
        found = D(FadingBlur(sigma=sigma).build()(real), c if c.shape[1] else None)
        assert_close(found, torch.from_numpy(arrays[f"out/D_real_blur{sigma:g}"]), rtol=1e-4, atol=1e-5)
        assert (found - plain).abs().max() > 1e-3
