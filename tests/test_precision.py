"""Losses in bfloat16: near those of float32, with everything that needs its digits in float32, and resumable."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from loops import loop_over
from runs import assert_resumes
from tiny import recipe
from torch import nn

from equipoise.augment import ADA
from equipoise.compute.precision import older_switches, tensor_float32
from equipoise.compute.settings import Compute
from equipoise.config import override
from equipoise.core.randomness import Purpose
from equipoise.core.types import Logits
from equipoise.data import InfiniteBatches
from equipoise.features.base import exact_float32
from equipoise.losses import R1, Consensus, Hinge, class_loss, discriminator_loss, flat
from equipoise.models import Head, Projection
from equipoise.train import GAN, d_step, g_step, loss_on
from equipoise.weights import NoNormalizer


def built(**changes):
    cfg = replace(recipe(), **changes)
    dataset = cfg.data.build()
    return GAN.build(cfg, dataset.spec), next(InfiniteBatches(dataset, cfg.batch_size, seed=0))


def gradients(gan, batch):
    """Of both losses, by player."""
    found = []
    for player in gan.players:
        weights = [p.requires_grad_() for group in player.optim.param_groups for p in group["params"]]
        with gan.compute.loss():
            fake = gan.generate(batch, Purpose.Z_FOR_D, 0)
            loss = loss_on(gan, player, batch, fake)
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)]))
    return found


def test_gradients_are_near_those_of_float32():
    exact, rounded = (gradients(*built(compute=Compute(precision=precision))) for precision in ("float32", "bf16"))
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32
        assert 0 < (a - b).norm() / a.norm() < 0.1  # the batch norm of 8 images


def test_images_logits_and_weights_are_float32():
    gan, batch = built(compute=Compute(precision="bf16"))
    seen = []
    gan.D.body[0].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    with gan.compute.loss():
        fake = gan.generate(batch, Purpose.Z_FOR_D, 0)
        logits = gan.outputs(fake.x, fake.y)
    assert seen == [torch.bfloat16]  # it does what it says
    assert {fake.x.dtype, logits.fun.dtype, logits.dir.dtype} == {torch.float32}
    g_step(gan, batch, 0)
    d_step(gan, batch, 0)
    state = [t for optim in (gan.d_optim, gan.g_optim) for s in optim.state.values() for t in s.values()]
    assert {t.dtype for t in (*gan.G.parameters(), *gan.D.parameters(), *state)} == {torch.float32}


def test_logits_of_a_network_of_ones_own_are_taken_as_float32():
    output = Logits(torch.ones(4, 1, dtype=torch.bfloat16), classes=torch.zeros(4, 3, dtype=torch.bfloat16))
    parts = list(flat([output, output.fun, output.fun.double()]))
    assert [part.fun.dtype for part in parts] == [torch.float32, torch.float32, torch.float64]
    assert discriminator_loss(Hinge(), output, output).dtype == torch.float32
    assert class_loss(output, torch.zeros(4, dtype=torch.int64)).dtype == torch.float32


def test_penalties_are_computed_in_float32():
    """R1 reads real images and D alone, so its value is that of a float32 run, bit for bit."""
    values = []
    for precision in ("float32", "bf16"):
        gan, batch = built(compute=Compute(precision=precision), terms=(R1(every=1),), d_normalizer=NoNormalizer())
        values.append(d_step(gan, batch, 0))
    assert values[0]["D/R1"] == values[1]["D/R1"]
    assert values[0]["D/loss"] != values[1]["D/loss"]


def test_images_held_out_leave_ds_gradient_alone():
    """D's weights rounded without a gradient, for the held-out images, are not taken for the loss.

    torch 2.13 keeps the two apart by itself; older ones, which the package allows, did so by block of autocast alone.
    """
    ends = []
    for held_out in (False, True):
        augment = ADA(heuristic="rv", held_out=0.1)
        gan, batch = built(compute=Compute(precision="bf16"), augment=augment, d_normalizer=NoNormalizer())
        d_step(gan, batch, 0, batch if held_out else None)
        ends.append(nn.utils.parameters_to_vector(gan.D.parameters()))
    assert torch.equal(*ends)


def test_resumes_bit_for_bit(tmp_path):
    assert_resumes(replace(recipe(), compute=Compute(precision="bf16")), tmp_path)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at the .grad of what it is given
def test_a_compiled_player_trains_alike_and_its_penalties_differentiate_twice(monkeypatch):
    """Compiled to a graph, without a C++ compiler, which refuses second derivatives just as compiled code does."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net, mode: compile_module(net, backend="aot_eager"))
    ends = []
    for compiled in (False, True):
        gan, batch = built(compute=Compute(compile=compiled), terms=(R1(every=1),))
        assert (gan.D._compiled_call_impl is not None) == compiled
        d_step(gan, batch, 0)
        g_step(gan, batch, 0)
        ends.append(nn.utils.parameters_to_vector([*gan.G.parameters(), *gan.D.parameters()]))
    assert (ends[0] - ends[1]).abs().mean() < 1e-6  # Adam's first step is 1e-3 long, whatever the size of a gradient


@loop_over(
    ("changes", "message"),
    [
        (
            {"terms": (Consensus(gamma=1.0),), "head": Head(Projection())},
            r"compute.compile=true and Consensus\(.*twice",
        ),
        (
            {"compute.convolutions": "measured"},
            r"compute.compile=true and compute.convolutions=measured .* Use compute.compile=false, or",
        ),
        (
            {"game.reuse": True},
            r"compute.compile=reduce-overhead and game.reuse=true .*overwrites.* Use compute.compile=true, or",
        ),
        (
            {"compute.micro_batch": 4},
            r"compute.compile=reduce-overhead and compute.micro_batch=4 .*overwrites",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(changes, message):
    cfg = override(recipe(), changes)
    with pytest.raises(ValueError, match=message):
        override(cfg, {"compute.compile": "reduce-overhead" if "reduce" in message else True})


# ---- TF32 ---------------------------------------------------------------------------------------------------


cuda, cudnn = torch.backends.cuda, torch.backends.cudnn


def switches():
    """They can be read without a GPU."""
    return cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.enabled, cudnn.benchmark, cudnn.deterministic


@pytest.fixture
def as_it_was():
    """PyTorch's switches of before the test, whatever it sets."""
    settings = torch.backends, cuda.matmul, cudnn, cudnn.conv, cudnn.rnn
    before = [setting.fp32_precision for setting in settings]
    yield
    for setting, precision in zip(settings, before, strict=True):
        setting.fp32_precision = precision


@pytest.mark.parametrize("given", ["nothing", "older", "everywhere", "convolutions"])
def test_tf32_is_on_for_a_step_and_what_it_was_after_it(given, as_it_was):
    match given:  # what somebody has set before
        case "older":
            torch.set_float32_matmul_precision("high")
        case "everywhere":
            torch.backends.fp32_precision = "tf32"
        case "convolutions":
            cudnn.conv.fp32_precision = "ieee"
    before = switches()
    with tensor_float32("tf32", torch.device("cuda")):
        assert switches() == ("tf32", "tf32", *before[2:])
    assert switches() == before
    with exact_float32():
        assert switches() == ("ieee", "ieee", True, False, True)
    assert switches() == before
    for precision, device in (("tf32", "cpu"), ("float32", "cuda"), ("bf16", "cuda")):
        with tensor_float32(precision, torch.device(device)):
            assert switches() == before


def test_older_switches_do_the_same(as_it_was):
    """Those of torch before 2.9, which this one has too."""

    def read():
        return torch.get_float32_matmul_precision(), cudnn.allow_tf32

    before = read()
    for rounding, expected in (("tf32", ("high", True)), ("ieee", ("highest", False))):
        with older_switches(rounding):
            assert read() == expected
        assert read() == before


def test_tf32_holds_in_both_steps_and_their_backward(monkeypatch):
    """Without a GPU the switch does nothing, so what is recorded is when it is on."""
    on, seen = [], []

    @contextmanager
    def switch(precision, device):
        on.append((precision, device.type))
        yield
        on.pop()

    monkeypatch.setattr("equipoise.compute.computing.tensor_float32", switch)
    gan, batch = built(compute=Compute(precision="tf32"), terms=(R1(every=1),), d_normalizer=NoNormalizer())

    def note(module, given, made):
        seen.append(("forward", *on))
        if made.requires_grad:
            made.register_hook(lambda _: seen.append(("backward", *on)))

    for net in (gan.G, gan.D.body):
        net.register_forward_hook(note)
    d_step(gan, batch, 0)
    g_step(gan, batch, 0)
    assert {state[1:] for state in seen} == {(("tf32", "cpu"),)}
    assert [state[0] for state in seen].count("backward") >= 4  # of the loss, twice, of R1, and of G
    assert on == []


def test_without_a_gpu_tf32_is_float32():
    ends = []
    for precision in ("float32", "tf32"):
        gan, batch = built(compute=Compute(precision=precision))
        d_step(gan, batch, 0)
        g_step(gan, batch, 0)
        ends.append(nn.utils.parameters_to_vector([*gan.G.parameters(), *gan.D.parameters()]))
    assert torch.equal(*ends)


def test_images_outlive_a_replay_of_their_cuda_graph(monkeypatch):
    """A replay writes to the same place again, so what is kept is a copy of it."""
    monkeypatch.setattr(nn.Module, "compile", lambda *_, **__: None)
    for compiled, copied in ((True, False), ("reduce-overhead", True)):
        gan, batch = built(compute=Compute(compile=compiled))
        made = []
        gan.G.register_forward_hook(lambda *call, made=made: made.append(call[-1]))
        x = gan.generate(batch, Purpose.Z_FOR_D, 0).x
        assert torch.equal(x, made[0])
        assert (x.data_ptr() != made[0].data_ptr()) == copied


@loop_over(("given", "mode"), [(True, None), ("reduce-overhead", "reduce-overhead")])
def test_modes_of_the_compiler_are_passed_on(given, mode, monkeypatch):
    modes = []
    monkeypatch.setattr(nn.Module, "compile", lambda _, mode: modes.append(mode))
    built(compute=Compute(compile=given))
    assert modes == [mode, mode]
