"""Optimisers as values: what they build, and what they set as images go by."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.schedules import After, Linear
from equipoise.rules import Adam, RMSprop, optim

ALL = [c for name in optim.__all__ if dataclasses.is_dataclass(c := getattr(optim, name))]
every_optimiser = loop_over("config", ALL, ids=lambda c: c.__name__)
falling = Linear(start=1e-3, end=0.0, kimg=1.0)


def steps(config, gradients, nimg=()):
    """The weight after a step for each gradient, from 1."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(layer.weight)
    optimizer = config.build(layer)
    for i, g in enumerate(gradients):
        if nimg:
            config.apply(optimizer, nimg[i])
        layer.weight.grad = torch.full_like(layer.weight, g)
        optimizer.step()
    return layer.weight.item()


def test_adam_is_kingma_and_bas_algorithm():
    lr, beta1, beta2, eps, gradients = 0.1, 0.5, 0.9, 1e-8, [1.0, -2.0, 0.5]
    m = v = 0.0
    w = 1.0
    for t, g in enumerate(gradients, start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        w -= lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)) ** 0.5 + eps)
    found = steps(Adam(lr=lr, betas=(beta1, beta2), eps=eps), gradients)
    assert found == pytest.approx(w, rel=1e-9)


def test_weight_decay_is_a_part_of_the_gradient():
    """So it goes into both averages, where AdamW shrinks the weight beside them."""
    lr, beta1, beta2, decay, gradients = 0.1, 0.5, 0.9, 0.3, [1.0, -2.0, 0.5]
    m = v = 0.0
    w = 1.0
    for t, g in enumerate(gradients, start=1):
        g += decay * w
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        w -= lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)) ** 0.5 + 1e-8)
    assert steps(Adam(lr=lr, betas=(beta1, beta2), weight_decay=decay), gradients) == pytest.approx(w, rel=1e-9)


def test_rmsprop_is_hintons():
    lr, alpha, gradients = 0.1, 0.9, [1.0, -2.0, 0.5]
    v, w = 0.0, 1.0
    for g in gradients:
        v = alpha * v + (1 - alpha) * g * g
        w -= lr * g / (v**0.5 + 1e-8)
    assert steps(RMSprop(lr=lr, alpha=alpha), gradients) == pytest.approx(w, rel=1e-9)


def test_published_defaults():
    assert RMSprop().lr == 5e-5  # Arjovsky et al. 2017
    assert Adam().betas == (0.0, 0.99)


def test_integer_betas_are_accepted():
    """`torch.optim.Adam(betas=(0, 0.9))` raises in some versions of torch; published settings are written so."""
    found = Adam(lr=1, betas=(0, 0.9)).build(nn.Linear(1, 1)).param_groups[0]
    assert found["betas"] == (0.0, 0.9)
    assert all(type(beta) is float for beta in found["betas"])
    assert steps(Adam(lr=0.1, betas=(0, 0.9)), [1.0], nimg=[0]) == pytest.approx(0.9)


def test_adam_follows_its_schedules():
    """lr and both betas, after every call of apply, in every group."""
    config = Adam(lr=falling, betas=(Linear(start=0.0, end=0.5, kimg=1.0), Linear(start=0.9, end=0.5, kimg=1.0)))
    optimizer = config.build(nn.Linear(2, 2))
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.9)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    for nimg, lr, *betas in ((0, 1e-3, 0.0, 0.9), (500, 5e-4, 0.25, 0.7), (1000, 0.0, 0.5, 0.5), (9999, 0.0, 0.5, 0.5)):
        config.apply(optimizer, nimg)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(lr)
            assert group["betas"] == pytest.approx(betas)


@every_optimiser
def test_lr_follows_its_schedule(config):
    """A step at the end of the schedule, where lr is 0, changes nothing."""
    c = config(lr=falling)
    assert steps(c, [1.0], nimg=[1000]) == 1.0
    assert steps(c, [1.0], nimg=[0]) < 1.0
    half = 1.0 - steps(c, [1.0], nimg=[500])
    assert half == pytest.approx((1.0 - steps(c, [1.0], nimg=[0])) / 2)


@every_optimiser
def test_only_trainable_weights_are_optimised(config):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = config().build(net)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net[1].parameters()}
    net(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    assert torch.equal(net[0].weight, before)


@every_optimiser
def test_a_restored_optimiser_goes_on_as_before(config):
    """State and all: the step after a save and a load is the step without."""
    c, net, x = config(lr=0.01), nn.Linear(3, 1), torch.randn(8, 3)
    twin = nn.Linear(3, 1)

    def step(layer, optimizer):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()

    first = c.build(net)
    step(net, first)
    twin.load_state_dict(net.state_dict())
    second = c.build(twin)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # loading would share the state's tensors
    c.apply(second, 64)
    step(net, first)
    step(twin, second)
    assert_close(twin.weight, net.weight, rtol=0, atol=0)


def test_settings_are_checked():
    for make, field in (
        (lambda: Adam(lr="fast"), "lr"),
        (lambda: Adam(lr=True), "lr"),
        (lambda: Adam(betas=(0.5,)), "betas"),
        (lambda: Adam(eps=0.0), "eps"),
        (lambda: Adam(eps=math.nan), "eps"),
        (lambda: Adam(lr=math.inf), "lr takes a finite number"),
        (lambda: Adam(betas=(1, 1)), r"betas=\(1\.0, 1\.0\) reach 1, and Adam divides by 1 - beta"),
        (lambda: Adam(betas=(0.0, Linear(start=0.9, end=1.0, kimg=5))), "reach 1, and Adam divides"),
        (lambda: Adam(betas=(0.0, After(Linear(start=0.9, end=1.5, kimg=5), kimg=3))), r"reach 1\.5, and"),
        (lambda: RMSprop(alpha=1.0), "alpha"),
    ):
        with pytest.raises(ValueError, match=field):
            make()
