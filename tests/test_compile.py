"""Compiled players against eager ones: the same weights, gradients and state, whatever a forward overwrites."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise.compute.settings import Compute
from equipoise.data import InfiniteBatches
from equipoise.models import MLPDiscriminator
from equipoise.nn import SyncBatchNorm
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute"),  # the compiler reads the .grad of what it is given
    pytest.mark.filterwarnings("ignore:.*script_method"),  # torch's own, when its compiler is imported
]


def graphs(graph, inputs):
    """A backend that rewrites and cuts graphs as the default one does, then runs them without a C++ compiler."""
    from functorch.compile import make_boxed_func
    from torch._inductor.compile_fx import compile_fx  # imported in a test, where pytest ignores its warnings

    return compile_fx(graph, inputs, inner_compile=lambda cut, *_, **__: make_boxed_func(cut.forward))


LAYERS = {
    "spectral norm": lambda: normalised(SpectralNorm(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1)),
    "three iterations": lambda: normalised(SpectralNorm(iterations=3), nn.Conv1d(1, 4, 3), nn.ReLU(inplace=True)),
    "batch norm": lambda: nn.Sequential(nn.Unflatten(1, (1, 2, 3)), nn.BatchNorm2d(1), SyncBatchNorm(1), nn.Tanh()),
}


def normalised(norm, *layers):
    net = nn.Sequential(*layers)
    if isinstance(layers[0], nn.Conv1d):
        net.insert(0, nn.Unflatten(1, (1, 6)))
    norm(net)
    return net


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_with_state_has_the_gradients_of_its_own_forward(name):
    """In float64: after one forward, and after two before one backward, as in an update of D."""
    eager = LAYERS[name]().double()
    compiled = copy.deepcopy(eager)
    compiled.compile(backend=graphs)
    for forwards in (1, 2, 2):
        batches = torch.randn(forwards, 5, 6, dtype=torch.float64)
        gradients = [
            torch.autograd.grad(sum(net(x).square().mean() for x in batches), [*net.parameters()])
            for net in (eager, compiled)
        ]
        assert_close(*gradients, rtol=1e-10, atol=1e-13)
        assert_close(dict(eager.named_buffers()), dict(compiled.named_buffers()), rtol=1e-12, atol=1e-14)


def test_ten_iterations_are_those_of_eager_players(monkeypatch):
    """A SAN whose D has spectral norm, on weights small enough to be divided twice, and whose G has batch norm."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net, mode: compile_module(net, backend=graphs))
    adam = Adam(lr=1e-3, eps=1e-3)  # of a gradient that is 0 but for rounding, a smaller eps would make a step
    ends = []
    for compiled in (False, True):
        D = {"discriminator": MLPDiscriminator(width=4, depth=2), "d_normalizer": SpectralNorm()}
        cfg = replace(recipe(), compute=Compute(compile=compiled), g_optim=adam, d_optim=adam, **D)
        dataset = cfg.data.build()
        gan, batches = GAN.build(cfg, dataset.spec), InfiniteBatches(dataset, cfg.batch_size, seed=0)
        assert (gan.D._compiled_call_impl is not None) == compiled
        for i in range(10):
            batch = next(batches)
            d_step(gan, batch, i * cfg.batch_size)
            g_step(gan, batch, i * cfg.batch_size)
        ends.append({f"{n}.{key}": v for n in "GD" for key, v in getattr(gan, n).state_dict().items()})
    assert_close(*ends, rtol=0, atol=1e-6)
