"""Sizes that no memory holds are refused before anything is built, and memory that ran out is one line."""

from __future__ import annotations

import resource
import time
from dataclasses import replace

import pytest
import torch
from loops import loop_over
from tiny import recipe
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from equipoise.config import override
from equipoise.core.types import Batch, ImageSpec, RunError, component
from equipoise.models import GeneratorConfig, MLPDiscriminator, MLPGenerator, NoConditioning, bounded
from equipoise.models.counts import on_meta
from equipoise.train import GAN, Memory, d_step, fit_or_say_so, g_step, host_memory, require_fitting, train
from equipoise.train import memory as sizes
from equipoise.train.memory import cgroup_limits
from equipoise.weights import NoNormalizer

SPEC, IMAGES, CPU = ImageSpec(28, channels=1, num_classes=10), 1797, torch.device("cpu")


def perceptrons():
    head = replace(recipe().head, conditioning=NoConditioning())
    nets = {"generator": MLPGenerator(width=8), "discriminator": MLPDiscriminator(width=8)}
    return replace(recipe(), **nets, head=head, d_normalizer=NoNormalizer())


@loop_over(
    ("changes", "message"),
    [
        ({"generator.z_dim": 10**9}, "generator is too large: its weights and their gradients do not fit into"),
        ({"generator.width": 10**8}, "generator is too large: its weights"),
        ({"discriminator.width": 10**8}, "discriminator is too large: its weights"),
        ({"generator.width": 2**62}, r"generator is too large: a weight has over 2\*\*63 bytes"),
        ({"batch_size": 10**9}, "batch_size=1000000000 is over 100 times the 10000 images of the data: give"),
        ({"batch_size": 1_000_001}, "over 100 times the 10000 images"),
        ({"g_batches": 10**9}, r"batch_size=8: an update .* takes at least .* GiB more, .* or compute.micro_batch"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_built(tmp_path, changes, message):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as refusal:
        train(override(recipe(), changes), tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert time.perf_counter() - start < 30
    assert not (tmp_path / "run").exists()


def test_a_network_without_an_end_is_refused(monkeypatch):
    assert bounded.MOST_WEIGHTS == 10_000
    monkeypatch.setattr(bounded, "MOST_WEIGHTS", 500)
    for player in ("generator", "discriminator"):
        cfg = override(perceptrons(), {f"{player}.depth": 10**9})
        with pytest.raises(ValueError, match=f"{player} is too deep: it has more than 500 weights"):
            require_fitting(cfg, SPEC, IMAGES, CPU)
    deep = MLPGenerator(depth=10**9)
    with pytest.raises(ValueError, match="generator is too deep"):  # `equipoise models`
        on_meta(deep, MLPDiscriminator(), recipe().head, SPEC)


class Peak(TorchDispatchMode):
    """Most bytes of tensors alive at once that were made in the block."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {at: (ref, size) for at, (ref, size) in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def bound(cfg, monkeypatch):
    """The least memory with which `cfg` is not refused, in bytes: bisection of the answer."""
    low, high = 0, 2**27
    while high - low > high / 100:
        middle = (low + high) // 2
        monkeypatch.setattr(sizes, "host_memory", lambda middle=middle: Memory(middle, "memory"))
        try:
            require_fitting(cfg, SPEC, IMAGES, CPU)
            high = middle
        except ValueError:
            low = middle
    return high


@pytest.mark.parametrize("batch_size", [8, 256])
def test_the_bound_is_below_what_a_step_takes_and_not_far_below(monkeypatch, batch_size):
    cfg = replace(recipe(), batch_size=batch_size)
    with Peak() as measured:
        gan = GAN.build(cfg, SPEC)
        ema = cfg.ema.build(gan.G)
        batch = Batch(torch.zeros(batch_size, 1, 28, 28), torch.zeros(batch_size, dtype=torch.int64))
        d_step(gan, batch, 0)
        g_step(gan, batch, 0)
    del ema
    assert measured.peak / 5 < bound(cfg, monkeypatch) < measured.peak


def test_pieces_and_half_precision_take_less(monkeypatch):
    whole = replace(recipe(), batch_size=256)
    for change in ({"compute.micro_batch": 16}, {"compute.precision": "bf16"}):
        assert bound(override(whole, change), monkeypatch) < 0.7 * bound(whole, monkeypatch)


@component
class OwnGenerator(GeneratorConfig):
    """Reads its weights, so it cannot be built on the meta device."""

    def build(self, spec: ImageSpec) -> nn.Module:
        layer = nn.Linear(self.z_dim, 28 * 28)
        if layer.weight.sum().item() == 0:
            raise AssertionError
        return nn.Sequential(layer, nn.Unflatten(1, (1, 28, 28)))


def test_a_network_that_needs_its_numbers_is_not_judged():
    cfg = replace(perceptrons(), generator=OwnGenerator())
    require_fitting(cfg, SPEC, IMAGES, CPU)
    assert sizes.on_meta("generator", lambda: cfg.generator.build(SPEC), 2**30, Memory(2**30, "memory")) == (None, 0)


def test_the_smallest_limit_counts(monkeypatch, tmp_path):
    free = host_memory()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (2**20, 2**30))
    assert free > host_memory() == Memory(2**20, "ulimit -v")
    for folder, file in (("a/b", "memory.max"), ("memory/c/d", "memory.limit_in_bytes")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / file).write_text("max\n" if folder == "a/b" else "5000\n")
    (tmp_path / "a" / "memory.max").write_text("3000\n")
    (tmp_path / "groups").write_text("4:memory:/c/d\n3:cpuset:/x\n0::/a/b\n")
    monkeypatch.setattr(sizes, "CGROUPS", tmp_path)
    monkeypatch.setattr(sizes, "GROUPS", tmp_path / "groups")
    assert sorted(cgroup_limits()) == [3000, 5000]
    assert host_memory() == Memory(3000, "its control group")


@loop_over(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_that_ran_out_is_one_line(tmp_path, monkeypatch, error):
    def failing(*_):
        raise error

    monkeypatch.setattr("equipoise.train.loop.d_step", failing)
    with pytest.raises(RunError, match=r"^out of memory: smaller batch_size, or compute.micro_batch$"):
        train(recipe(), tmp_path)


def test_an_allocation_that_torch_refuses():
    with pytest.raises(RunError, match=r"^out of memory: less$"), fit_or_say_so("less"):
        torch.empty(2**50)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), fit_or_say_so("less"):
        raise RuntimeError("shapes do not match")
