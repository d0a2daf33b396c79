"""Standing statistics: pooled over all passes, in float64, and of the weights as they are."""

import copy
from dataclasses import replace

import pytest
import torch
from loops import loop_over
from processes import on_two_processes
from tiny import recipe
from torch import nn
from torch.testing import assert_close

from equipoise.compute.settings import Compute
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import ImageSpec
from equipoise.generate import Generator, averaged_generator, standing_statistics, truncated
from equipoise.models import Head, SANDigitsGenerator
from equipoise.nn import ConditionalBatchNorm, LinearConditionalBatchNorm, SyncBatchNorm


@pytest.fixture(autouse=True, scope="module")
def draws_little():
    """Here statistics are of as many images as in use."""


Z = torch.randn(5, 16, 3, generator=torch.Generator().manual_seed(0))


def draw(i):
    return Z[i], None


class Net(nn.Module):
    """Two batch norms, the second of which sees what the first made of each batch."""

    def __init__(self):
        super().__init__()
        self.linear, self.first = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.second = nn.BatchNorm1d(4)

    def forward(self, z, y=None):
        return self.second(self.first(self.linear(z)).relu() * 3)


def test_mean_and_variance_are_pooled_over_all_passes():
    net = Net().eval()
    standing_statistics(net, draw, passes=5)
    inputs = net.linear(Z).detach().double()  # (5, 16, 4)
    assert_close(net.first.running_mean, inputs.flatten(0, 1).mean(0).float())
    assert_close(net.first.running_var, inputs.flatten(0, 1).var(0).float())
    normalised = [copy.deepcopy(net.first).train()(x.float()).relu() * 3 for x in inputs]
    pooled = torch.cat(normalised).detach().double()
    assert_close(net.second.running_mean, pooled.mean(0).float())
    assert_close(net.second.running_var, pooled.var(0).float())


def test_only_batch_norms_change_and_modes_come_back():
    net = nn.ModuleDict({"drop": nn.Dropout(0.5), "body": Net()}).eval()
    net["body"].second.train()
    before = {n: p.clone() for n, p in net.named_parameters()}
    standing_statistics(net["body"], draw, passes=2)
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    assert [m.training for m in (net["body"].first, net["body"].second, net["body"])] == [False, True, False]
    assert not net["body"].first._forward_pre_hooks


class Conditional(nn.Module):
    """The library's own norms, on z as maps of one pixel."""

    def __init__(self, batch_norm):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.plain, self.by_class = batch_norm(4), ConditionalBatchNorm(4, 2, batch_norm=batch_norm)
        self.by_vector = LinearConditionalBatchNorm(4, 3, batch_norm=batch_norm)

    def forward(self, z, y=None):
        h = self.plain(self.linear(z)[:, :, None, None]).relu()
        return self.by_vector(self.by_class(h, (z[:, 0] > 0).long()).relu(), z)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_one_process_of_two_may_draw_them_alone(tmp_path):
    """The other would wait for it elsewhere, as it does while rank 0 writes a snapshot."""
    plain, synced = Conditional(nn.BatchNorm2d), Conditional(SyncBatchNorm)
    synced.load_state_dict(plain.state_dict())

    def work(rank):
        if rank == 0:
            standing_statistics(synced.eval(), draw, passes=5)
        return synced.state_dict(), [m.alone for m in synced.modules() if isinstance(m, SyncBatchNorm)]

    (state, alone), _ = on_two_processes(work, tmp_path / "ranks")
    assert alone == [False] * 3
    standing_statistics(plain.eval(), draw, passes=5)
    assert len({tuple(b.flatten().tolist()) for n, b in plain.named_buffers() if n.endswith("var")}) == 3
    assert all(torch.equal(state[n], value) for n, value in plain.state_dict().items())


def test_a_network_without_batch_norm_is_not_even_called():
    def never(i):
        raise AssertionError

    standing_statistics(nn.Linear(2, 2), never)


def test_an_average_gets_statistics_of_its_own_weights_and_the_run_keeps_its_copy():
    cfg, spec = recipe(), ImageSpec(28, 1, 10)
    average = cfg.generator.build(spec).eval()
    with torch.no_grad():
        average.linear.weight.mul_(20)  # as if weights had moved far since the running averages
    kept = {n: b.clone() for n, b in average.named_buffers()}
    one, two = (averaged_generator(average, cfg, spec) for _ in range(2))
    z, y = torch.randn(64, cfg.generator.z_dim), torch.arange(64) % 10
    in_training = copy.deepcopy(average).train()(z, y)
    assert (one(z, y) - in_training).abs().mean() < 0.5 * (average(z, y) - in_training).abs().mean()
    assert torch.equal(one(z, y), two(z, y))
    assert all(torch.equal(b, kept[n]) for n, b in average.named_buffers())


# ---- classes ----------------------------------------------------------------------------------------------------


class OfClass(nn.Module):
    """A batch norm whose input is e(y); it keeps the labels that it was called with."""

    def __init__(self, num_classes):
        super().__init__()
        self.embed, self.norm, self.seen = nn.Embedding(num_classes, 3), nn.BatchNorm1d(3), []

    def forward(self, z, y):
        assert len(z) == len(y)
        self.seen.append(y)
        return self.norm(self.embed(y))


def of_run(num_classes, **fields):
    """The network with the statistics that a run saves."""
    cfg = replace(recipe(), **fields)
    return averaged_generator(OfClass(num_classes).eval(), cfg, ImageSpec(28, 1, num_classes))


def of_truncated(num_classes, passes):
    config = SANDigitsGenerator(z_dim=4)
    G = Generator(OfClass(num_classes).eval(), config, ImageSpec(28, 1, num_classes))
    return truncated(G, 0.5, passes=passes).net


@loop_over(
    ("made", "passes", "images"),
    [
        (lambda: of_run(1000, batch_size=64), 20, 64),
        (lambda: of_run(10, batch_size=64, compute=Compute(micro_batch=8)), 20, 8),
        (lambda: of_run(1000, batch_size=8), 125, 8),
        (lambda: of_run(7, batch_size=16), 20, 16),
        (lambda: of_truncated(300, 2), 2, 250),
        (lambda: of_truncated(5001, 20), 21, 250),
    ],
    ids=["1000 classes", "micro_batch", "more passes", "7 classes", "truncated", "truncated, more passes"],
)
def test_all_classes_are_seen_equally_often(made, passes, images):
    net = made()
    assert [len(y) for y in net.seen] == [images] * passes
    counts = torch.cat(net.seen).bincount(minlength=net.embed.num_embeddings)
    assert len(counts) == net.embed.num_embeddings
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1


@loop_over("num_classes", [40, 1000])
def test_statistics_are_those_of_all_classes(num_classes):
    """20 batches of 64 are all of 40 classes 32 times; batches of 50, all of 1,000 classes once."""
    net = of_run(num_classes, batch_size={40: 64, 1000: 50}[num_classes])
    rows = net.embed.weight.detach().double()
    n = 64 * 20 if num_classes == 40 else 1000
    assert_close(net.norm.running_mean, rows.mean(0).float())
    assert_close(net.norm.running_var, (rows.var(0, correction=0) * n / (n - 1)).float())


def test_each_seed_has_an_order_of_classes_in_which_neighbours_are_not_together():
    one, two, other = (torch.cat(of_run(1000, batch_size=50, seed=seed).seen) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert (one == other).double().mean() < 0.01
    assert ((one[1:] - one[:-1]).abs() == 1).double().mean() < 0.01


def test_truncation_with_no_passes_keeps_the_statistics():
    net = of_truncated(1000, 0)
    assert not net.seen
    assert torch.equal(net.norm.running_mean, torch.zeros(3))


def test_classes_of_the_data_do_not_move_an_unconditional_generator():
    """Its statistics are those of 20 batches of latents, however many classes the data has."""
    cfg = replace(recipe(), generator=SANDigitsGenerator(z_dim=3), head=Head(), batch_size=4, seed=5)
    net = Net().eval()
    made = averaged_generator(net, cfg, ImageSpec(28, 1, 1000))
    wanted = standing_statistics(
        copy.deepcopy(net), lambda i: (torch.randn(4, 3, generator=stream(5, Purpose.STANDING, i)),), passes=20
    )
    assert all(torch.equal(b, made.state_dict()[n]) for n, b in wanted.named_buffers())
    assert not torch.equal(made.first.running_mean, net.first.running_mean)
