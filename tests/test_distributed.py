"""Means of gradients over processes: buckets that travel beside the backward, and what a hundred steps make of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from processes import on_two_processes
from reference import SPEC, small
from torch import nn
from torch.testing import assert_close

from equipoise.compute import distributed
from equipoise.compute.distributed import Reduction, apply_gradients, owned, rank, reducing, trainable
from equipoise.compute.settings import Compute
from equipoise.core.types import Batch
from equipoise.losses import R1, Hinge
from equipoise.models import Head
from equipoise.rules import Adam
from equipoise.train import GAN, d_step, g_step
from equipoise.weights import SpectralNorm

two_processes = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, for other threads


class Net(nn.Module):
    """The last layer is read by rank 0 alone, the first by none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))

    def forward(self, x):
        for layer in self.layers[1:3]:
            x = layer(x).tanh()
        return self.layers[3](x) if rank() == 0 else x


def images(of):
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(of))


def gradients_of_rank(of, net):
    """What `net` gets on that rank, zeros where it gets nothing."""
    x = images(of)
    for layer in net.layers[1:3]:
        x = layer(x).tanh()
    loss = (net.layers[3](x) if of == 0 else x).square().sum() * (of + 1)
    return torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)


@two_processes
def test_buckets_are_the_means_whoever_has_a_gradient(tmp_path, monkeypatch):
    """Of 12 and 36 bytes a layer: each alone, some together, all in one. With lr 1 a step of SGD is the gradient."""
    settings = [(size, beside) for size in (1, 50, 25 * 2**20) for beside in (True, False)]

    def work(own):
        found = []
        for size, beside in settings:
            monkeypatch.setattr(distributed, "BUCKET", size)
            net = Net()
            optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
            before = [p.detach().clone() for p in net.parameters()]
            with trainable(optimizer):
                with reducing(optimizer, last=beside) as reduction:
                    (net(images(own)).square().sum() * (own + 1)).backward()
                begun = 0 if reduction is None else len(reduction.begun)
                apply_gradients(optimizer, reduction)
            found.append((begun, [old - new.detach() for old, new in zip(before, net.parameters(), strict=True)]))
        return found

    a, b = on_two_processes(work, tmp_path / "two")
    wanted = [(x + y) / 2 for x, y in zip(*(gradients_of_rank(r, Net()) for r in (0, 1)), strict=True)]
    assert sum(w.abs().sum() for w in wanted[-2:]) > 0.1  # from rank 0 alone
    for (size, beside), (begun, mean), (begun_there, same) in zip(settings, a, b, strict=True):
        assert_close(mean, wanted, rtol=1e-5, atol=1e-6)
        assert all(torch.equal(x, y) for x, y in zip(mean, same, strict=True))
        assert (begun > 0) == (beside and size < 100)  # and without the first layer the one bucket of all waits
        assert begun_there == 0  # nor does any where the last layer has no gradient


def test_buckets_hold_all_parameters_the_last_first_and_travel_in_their_order(monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET", 100)
    sent = []
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda total, **_: sent.append(total.clone()))
    net = Net()
    parameters = list(net.parameters())
    reduction = Reduction(parameters)
    assert [p for bucket in reduction.waiting for p in bucket] == parameters[::-1]
    assert [sum(p.nbytes for p in bucket) for bucket in reduction.waiting] == [96, 96]
    for i, p in enumerate(parameters):
        p.grad = torch.full_like(p, i)
    for p in parameters[:7]:  # all but the very last, which the first bucket waits for
        reduction.note(p)
    assert sent == []
    reduction.note(parameters[7])
    assert [total.unique().tolist() for total in sent] == [[4, 5, 6, 7], [0, 1, 2, 3]]


def test_one_process_reduces_nothing():
    optimizer = torch.optim.SGD(Net().parameters(), lr=1.0)
    with reducing(optimizer) as reduction:
        assert reduction is None
    assert not any(p._post_accumulate_grad_hooks for p in owned(optimizer))


# ---- a hundred steps -------------------------------------------------------------------------------------


CASES = {
    "loss alone": small(d_normalizer=SpectralNorm(), head=Head(san=True), loss=Hinge()),
    "R1 now and then, in pieces": small(terms=(R1(every=3),), compute=Compute(micro_batch=2), g_batches=2),
}


def after_a_hundred_steps(name, rank, world):
    """Parameters of both players before and after 50 updates of each, on their share of the batch of each step."""
    adam = Adam(lr=1e-3, eps=1e-3)  # an element whose gradient is rounding noise stays put
    gan = GAN.build(replace(CASES[name], d_optim=adam, g_optim=adam), SPEC)
    own = slice(rank * 8 // world, (rank + 1) * 8 // world)
    start = weights(gan)
    for step in range(50):
        x = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(step))
        real = Batch(x[own], torch.arange(8)[own])
        d_step(gan, real, 8 * step)
        g_step(gan, real, 8 * step)
    return start, weights(gan)


def weights(gan):
    return {f"{x}.{n}": p.detach().clone() for x in "GD" for n, p in getattr(gan, x).named_parameters()}


@two_processes
def test_two_processes_hold_equal_weights_after_a_hundred_steps_and_those_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET", 400)  # several of them, also of these small networks
    found = on_two_processes(lambda rank: [after_a_hundred_steps(name, rank, 2) for name in CASES], tmp_path / "two")
    for name, (start, a), (_, b) in zip(CASES, *found, strict=True):
        _, one = after_a_hundred_steps(name, 0, 1)
        assert all(torch.equal(a[key], b[key]) for key in a), name
        assert_close(a, one, rtol=0, atol=1e-5)
        assert max((a[key] - start[key]).abs().max().item() for key in a) > 1e-2
