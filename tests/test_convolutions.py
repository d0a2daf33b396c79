"""Every way to compute a convolution is the same function, with the same derivatives; the choice is kept."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from loops import loop_over
from torch import nn

from equipoise.compute import convolutions, taps
from equipoise.compute.convolutions import WAYS, Convolution, Convolutions, worth_measuring
from equipoise.compute.recompute import recomputed

PLAIN = [
    Convolution(False, stride=(1, 1), padding=(0, 0)),
    Convolution(False, stride=(2, 1), padding=(1, 2)),
    Convolution(False, stride=(2, 3), padding=(2, 1)),
]
TRANSPOSED = [
    Convolution(True, stride=(1, 1), padding=(0, 0)),
    Convolution(True, stride=(2, 2), padding=(1, 1)),
    Convolution(True, stride=(3, 2), padding=(2, 1), output_padding=(2, 1)),
]
CASES = [(c, way) for c in (*PLAIN, *TRANSPOSED) for way in WAYS[c.transposed]]


def tensors(convolution, bias=True):
    torch.manual_seed(0)
    shape = (3, 5, 4, 3) if convolution.transposed else (5, 3, 4, 3)
    given = torch.randn(4, 3, 9, 8), torch.randn(shape), torch.randn(5) if bias else None
    return [None if t is None else t.double().requires_grad_() for t in given]


@loop_over("bias", [True, False])
@loop_over(("convolution", "way"), CASES, ids=str)
def test_is_the_convolution_and_has_its_derivatives(convolution, way, bias):
    given = tensors(convolution, bias)
    expected, found = convolution(*given), WAYS[convolution.transposed][way](convolution, *given)
    torch.testing.assert_close(found, expected)
    assert found.shape[2:] == convolution.size(*given[:2])
    wanted = [t for t in given if t is not None]
    slope = torch.randn_like(expected)
    grads = [torch.autograd.grad(y, wanted, slope, create_graph=True) for y in (expected, found)]
    torch.testing.assert_close(grads[1], grads[0])
    second = [
        torch.autograd.grad((g[0] ** 2).sum() + (g[1] ** 2).sum(), wanted[:2]) for g in grads
    ]  # as a gradient penalty takes it
    torch.testing.assert_close(second[1], second[0])


def test_sees_the_convolutions_of_any_network_in_every_form_of_arguments(monkeypatch):
    monkeypatch.setattr(convolutions, "fastest", lambda c, *_: list(WAYS[c.transposed])[1])  # never torch's own
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ConvTranspose2d(3, 2, 4, 2, 1), nn.Conv2d(2, 2, 1))
    x = torch.randn(2, 2, 6, 6)
    w, b = torch.randn(4, 2, 3, 3), torch.randn(4)
    with Convolutions() as mode:
        found = net(x), F.conv2d(x, w, bias=b, padding=2, stride=(2, 1)), F.conv2d(x, w, padding=(1,))
    torch.testing.assert_close(found, (net(x), F.conv2d(x, w, b, (2, 1), 2), F.conv2d(x, w, padding=1)))
    assert sorted(mode.chosen.values()) == ["fold", *["patches"] * 4]


@loop_over(
    "call",
    [
        lambda x: F.conv2d(x, torch.ones(4, 2, 3, 3), groups=2),
        lambda x: F.conv2d(x, torch.ones(4, 4, 3, 3), dilation=2),
        lambda x: F.conv2d(x, torch.ones(4, 4, 3, 3), padding="same"),
        lambda x: F.conv2d(x[0], torch.ones(4, 4, 3, 3)),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3), groups=2),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 3, 3), dilation=(2, 1)),
    ],
)
def test_leaves_to_torch_what_it_does_not_know(call):
    x = torch.randn(2, 4, 7, 7)
    with Convolutions() as mode:
        found = call(x)
    assert torch.equal(found, call(x))
    assert not mode.chosen


def test_a_shape_is_measured_once_and_what_was_chosen_is_kept(monkeypatch):
    calls = []
    monkeypatch.setattr(convolutions, "fastest", lambda *_: calls.append(1) or "patches")
    kept = []
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(2, 2, 6, 6)
    with Convolutions(keep=lambda: kept.append(1)) as mode:
        layer(x)
        layer(x)
    assert (len(calls), len(kept)) == (1, 1)
    with Convolutions(mode.chosen) as again:
        layer(x)
        layer(x[:1])  # another shape
    assert (len(calls), len(again.chosen)) == (2, 2)


def test_measuring_draws_nothing_and_leaves_no_gradient():
    layer, x = nn.Conv2d(1, 8, 5, stride=2), torch.randn(4, 1, 28, 28, requires_grad=True)
    state = torch.get_rng_state()
    with Convolutions() as mode:
        y = layer(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None
    assert layer.weight.grad is None
    torch.testing.assert_close(y, layer(x))
    (name,) = mode.chosen
    assert name == "conv2d 4x1x28x28 8x1x5x5 s2x2 p0x0 o0x0 float32 d/xwb"


@loop_over("layout", ["contiguous", "channels_last"])
@loop_over(("transposed", "way"), [(t, way) for t in (False, True) for way in WAYS[t]])
def test_layout_and_precision_are_what_was_asked(transposed, way, layout, monkeypatch):
    monkeypatch.setattr(convolutions, "fastest", lambda *_: way)
    layer, x = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 8, 3), torch.randn(2, 4, 9, 9)
    with Convolutions(layout=layout) as mode, torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")
    assert all("bfloat16" in call for call in mode.chosen)
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.02)


def test_float64_stays_under_autocast(monkeypatch):
    monkeypatch.setattr(convolutions, "fastest", lambda *_: "patches")
    layer, x = nn.Conv2d(1, 2, 3).double(), torch.randn(2, 1, 6, 6, dtype=torch.float64)
    with Convolutions(), torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float64


def test_patches_are_not_tried_where_they_take_much_memory():
    few, many = torch.empty(8, 1, 28, 28, device="meta"), torch.empty(8, 256, 28, 28, device="meta")
    convolution = Convolution(False, (1, 1), (1, 1))
    assert worth_measuring("patches", convolution, few, torch.empty(64, 1, 3, 3, device="meta"))
    assert not worth_measuring("patches", convolution, many, torch.empty(256, 256, 3, 3, device="meta"))
    transposed = Convolution(True, (2, 2), (1, 1))
    assert worth_measuring("fold", transposed, many, torch.empty(256, 1, 4, 4, device="meta"))
    assert not worth_measuring("fold", transposed, many, torch.empty(256, 256, 4, 4, device="meta"))
    assert not worth_measuring("halves", convolution, few[:1], torch.empty(64, 1, 3, 3, device="meta"))


def test_taps_are_tried_for_weights_of_many_channels_that_learn():
    convolution = Convolution(False, (2, 2), (1, 1))
    x, w = torch.empty(8, 64, 6, 6, device="meta"), torch.empty(64, 64, 4, 4, device="meta", requires_grad=True)
    assert worth_measuring("taps", convolution, x, w)
    assert not worth_measuring("taps", convolution, x, w.detach())
    assert not worth_measuring("taps", convolution, x, w[:, :3])
    assert not worth_measuring("taps", convolution, x, w[:, :, :1, :1])
    with torch.no_grad():
        assert not worth_measuring("taps", convolution, x, w)


@loop_over("way", WAYS[False])
def test_gradients_of_weights_lie_in_memory_as_the_weights(way, monkeypatch):
    """What divides a weight by its norm reads both together: from two layouts that is ten times as slow."""
    monkeypatch.setattr(convolutions, "fastest", lambda *_: way)
    original, x = torch.randn(8, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 9, 9)
    seen = []
    w = original / 2  # as a normaliser makes it
    w.register_hook(lambda slope: seen.append(slope.stride()))
    with Convolutions(layout="channels_last"):
        F.conv2d(x, w).sum().backward()
    assert seen == [w.stride()]


@loop_over("way", ["torch", "patches", "taps"])
def test_measured_convolutions_go_through_torch_func(way, monkeypatch):
    monkeypatch.setattr(convolutions, "fastest", lambda *_: way)
    w, x = torch.randn(8, 4, 3, 3).double(), torch.randn(2, 4, 9, 9).double()

    def value(w, x):
        return F.conv2d(x, w).sin().sum()

    for transform in (
        lambda: torch.func.grad(value)(w, x),
        lambda: torch.func.grad(value, 1)(w.requires_grad_(), x),
        lambda: torch.func.vmap(lambda image: torch.func.grad(value)(w, image[None]))(x),
    ):
        expected = transform()
        with Convolutions():
            torch.testing.assert_close(transform(), expected)


def taps_of(net, call, monkeypatch):
    """How many gradients of weights were computed by taps."""
    count = []
    real = taps.weight_gradient
    monkeypatch.setattr(convolutions, "fastest", lambda *_: "taps")
    monkeypatch.setattr(taps, "weight_gradient", lambda *given: count.append(1) or real(*given))
    call(net)
    return len(count)


@loop_over("block", [lambda net, x: net(x), recomputed])
def test_a_penalty_computes_no_gradient_of_weights_on_its_way(block, monkeypatch):
    """Its first derivative is by the images alone, and its second one PyTorch's."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 3))
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    found = []
    for mode in (Convolutions(), None):

        def penalty(net, mode=mode):
            with mode or nullcontext(), mode.for_penalties() if mode else nullcontext():
                y = block(net, x)
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            found.append(torch.autograd.grad(slope.square().sum(), [p for p in net.parameters() if p.ndim > 1]))

        assert taps_of(net, penalty, monkeypatch) == 0
    torch.testing.assert_close(*found)
    assert taps_of(net, lambda net: learn(net, x), monkeypatch) == 2


def test_a_loss_is_recomputed_as_a_loss_inside_the_block_of_a_penalty(monkeypatch):
    net, x = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 3)), torch.randn(2, 1, 8, 8)

    def loss(net):
        with Convolutions() as mode:
            y = recomputed(net, x)
            with mode.for_penalties():
                y.sum().backward()
                assert mode.of_inputs

    assert taps_of(net, loss, monkeypatch) == 2


def learn(net, x):
    with Convolutions():
        net(x.detach()).sum().backward()


def test_another_way_must_be_clearly_faster(monkeypatch):
    def clock(times):
        ticks = iter([t for seconds in times for t in (0.0, seconds)] * (convolutions.ROUNDS + 1))
        monkeypatch.setattr(convolutions.time, "perf_counter", lambda: next(ticks))

    layer, x = nn.Conv2d(1, 8, 3), torch.randn(4, 1, 8, 8)
    given = Convolution(False, (1, 1), (0, 0)), x, layer.weight, layer.bias
    clock([1.0, 0.97, 2.0])  # torch, patches, halves
    assert convolutions.fastest(*given) == "torch"
    clock([1.0, 0.9, 2.0])
    assert convolutions.fastest(*given) == "patches"


def test_a_call_without_gradients_does_not_decide_for_one_with_them(monkeypatch):
    monkeypatch.setattr(convolutions, "fastest", lambda *_: "torch")
    layer, x = nn.Conv2d(1, 2, 3), torch.randn(2, 1, 6, 6)
    with Convolutions() as mode:
        with torch.no_grad():
            layer(x)
        layer(x)
    assert [call.split()[-1] for call in mode.chosen] == ["d/nothing", "d/wb"]


@loop_over("way", ["measured", "patches", "halves"])
@loop_over("where", ["outside", "inside", "in another thread"])
def test_recomputed_blocks_are_computed_in_the_same_way_again(way, where, monkeypatch):
    """Wherever the backward runs, in which their second forward does: on a GPU in a thread that knows no open block."""
    if way != "measured":
        monkeypatch.setattr(convolutions, "fastest", lambda *_: way)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3))
    if way == "patches":
        net[2] = nn.Conv2d(4, 2, 3)
    x = torch.randn(2, 1, 8, 8)
    mode = Convolutions()
    found, known = [], []
    for call in (net, lambda x: recomputed(net, x)):
        with mode, torch.device("cpu"):  # a mode that has nothing to say of it
            y = call(x)
            known.append(dict(mode.chosen))
            if where == "inside":
                found.append(slopes(y, net))
            elif where == "in another thread":
                thread = threading.Thread(target=in_thread, args=(y, net, found, torch.get_num_threads()))
                thread.start()
                thread.join()
        if where == "outside":
            found.append(slopes(y, net))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert known == [mode.chosen] * 2  # the second forward met nothing new
    net(x[:1])
    assert known == [mode.chosen] * 2  # no block is left open


def in_thread(y, net, found, threads):
    torch.set_num_threads(threads)  # a new thread has the default, which rounds sums otherwise
    found.append(slopes(y, net))


def slopes(y, net):
    return torch.autograd.grad(y.square().sum(), list(net.parameters()))


def test_nothing_of_convolutions_is_common_to_all_of_them():
    """What is open is known to PyTorch alone: a layer that recomputes asks for it, and no class or module holds it."""
    state = [name for name, value in vars(Convolutions).items() if isinstance(value, list | dict | set)]
    assert [name for name in state if not name.startswith("__")] == []
