"""What a network costs, counted on the meta device: nothing is computed or stored, so any size takes a moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from .config import TrainConfig
from .distributed import owned
from .gan import GAN
from .growth import NoGrowth
from .heads import Head
from .models import DiscriminatorConfig, GeneratorConfig
from .randomness import Purpose
from .sizes import bounded, bytes_of, kept_for_backward
from .train import Term, d_step, g_step
from .types import Batch, ImageSpec

__all__ = ["Counts", "Layer", "count", "iteration_flops", "layers", "on_meta", "training_bytes"]

BATCH = 4
"""Images of the counted forward, which is divided by it: what compares the images of a batch takes four."""

FLOAT = 4  # bytes of a float32


class Counts(NamedTuple):
    """parameters: of the network.
    macs: multiply-adds of matrix products and convolutions in the forward of an image.
    stored: bytes that the forward of an image keeps for the backward, in float32, without the weights.
    """

    parameters: int
    macs: int
    stored: int


class Layer(NamedTuple):
    """A line of a network's picture. depth: how many modules it is inside of.  shape: of what it returns, an image's.

    parameters: of it and all inside it.
    """

    depth: int
    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def on_meta(
    generator: GeneratorConfig, discriminator: DiscriminatorConfig, head: Head, spec: ImageSpec
) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """G, D, and what each is called with, (z, y) and (x, y), all on the meta device.

    Raises:
        ValueError: if the networks or the head are not defined for the data, or a network is too large to be counted.
    """
    with torch.device("meta"):
        with bounded("generator"):
            G = generator.build(spec)
        with bounded("discriminator"):
            D = head.build(discriminator.build, spec)
        y = torch.zeros(BATCH, dtype=torch.int64)
        z = torch.randn(BATCH, generator.z_dim)
        x = torch.randn(BATCH, spec.channels, spec.resolution, spec.resolution)
    return G, D, (z, y), (x, y)


def count(net: nn.Module, inputs: tuple[Tensor, ...]) -> Counts:
    """Of ``net(*inputs)``, per row of the inputs, in training mode; what one call of many images shares is divided too.

    A multiply-add is two of the operations that papers call FLOPs, and one of those that others call so.
    """
    with FlopCounterMode(display=False) as counter, kept_for_backward(net) as kept:
        output = net.train().requires_grad_()(*inputs)
    del output
    stored = bytes_of(kept)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Counts(parameters, counter.get_total_flops() // (2 * len(inputs[0])), stored // len(inputs[0]))


def training_bytes(G: Counts, D: Counts, batch: int) -> int:
    """Bytes that a step of Adam holds at its fullest, in float32, for `batch` images on one device.

    Weights, gradients and Adam's two averages of both networks, the average of G, and the activations of the larger
    of two moments: D on real and generated images in D's step, G and D in G's. Without what penalties keep beside
    them, workspace of convolutions, and what an allocator wastes: a lower bound, from which sizes compare.
    """
    weights = FLOAT * (5 * G.parameters + 4 * D.parameters)
    return weights + batch * max(2 * D.stored, G.stored + D.stored)


def iteration_flops(cfg: TrainConfig, spec: ImageSpec) -> int:
    """Floating-point operations of an iteration of `train`: updates of D on ``cfg.batch_size`` images, and G's.

    Two for each multiply-add of matrix products and convolutions: forward, backward, the gradients of gradients that
    penalties take, and what checkpointed blocks compute again. A lazy term counts with its share; networks that grow
    have their full size. Without what is elementwise, matrix-vector products (spectral norm's iterations), the
    optimisers and the average of G.

    The trainer's own steps run on the meta device, so this is what they do, not what a formula says they should.
    `precision`, `convolutions` and `compile` decide how fast they do it, and change nothing here.

    Raises:
        ValueError: if D is updated until it converges, which no count foresees.
    """
    if not isinstance(cfg.d_steps, int):
        raise ValueError(
            f"d_steps={cfg.d_steps!r} makes as many updates of D as its loss asks for: count an iteration with a fixed "
            "number, d_steps=5"
        )
    with torch.random.fork_rng(devices=[]):  # building seeds
        with torch.device("meta"):
            plain = replace(cfg, growth=NoGrowth(), micro_batch=None, precision="float32")
            plain = replace(plain, convolutions="torch", compile=False, reuse_fakes=False)
            gan = GAN.build(plain, spec, "meta")
            x = torch.zeros(cfg.batch_size, spec.channels, spec.resolution, spec.resolution)
            batch = Batch(x, torch.zeros(cfg.batch_size, dtype=torch.int64) if spec.num_classes else None)
        # Adam's fused kernel does not know the meta device.
        gan.d_optim, gan.g_optim = (torch.optim.SGD(owned(optim)) for optim in (gan.d_optim, gan.g_optim))
        held_out = batch if cfg.augment.held_out else None

        d_steps = cfg.d_steps
        d = mean_over_period(
            lambda update: d_step(gan, batch, update * cfg.batch_size, held_out, batch),
            (*cfg.penalties, *cfg.d_regularizers, *cfg.joint_penalties),
        )
        g = mean_over_period(
            lambda update: g_step(gan, batch, update * d_steps * cfg.batch_size, batch),
            (*cfg.g_regularizers, *cfg.joint_penalties),
        )
        if cfg.reuse_fakes:  # G's update, counted without it, makes its images anew
            (piece,) = gan.pieces(batch, Purpose.Z_FOR_G, 0)
            g -= operations(lambda _: gan.images_for_d(piece), 0)
    return round(d_steps * d + g)


def mean_over_period(step: Callable[[int], object], terms: Sequence[Term]) -> float:
    """Operations of an update, given by its number. Updates at which the same terms are due cost the same."""
    period = math.lcm(*(term.every for term in terms))
    due = [tuple(update % term.every == 0 for term in terms) for update in range(period)]
    known = {which: operations(step, due.index(which)) for which in set(due)}
    return sum(known[which] for which in due) / period


def operations(step: Callable[[int], object], update: int) -> int:
    counter = Products()
    with counter:
        step(update)
    return counter.flops


class Products(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions, inside `torch.autograd.grad` too.

    `FlopCounterMode` follows modules by hooks on their gradients, with which autograd refuses gradients of inputs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def layers(net: nn.Module, inputs: tuple[Tensor, ...], *, depth: int) -> list[Layer]:
    """The modules of ``net(*inputs)`` in the order in which they are registered, those inside others down to `depth`.

    Modules that were not called are left out; of one called several times it is the last call.
    """
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        first = output if isinstance(output, Tensor) else next((o for o in tensors(output)), None)
        if first is not None:
            shapes[module] = tuple(first.shape[1:])

    hooks = [module.register_forward_hook(note) for module in net.modules()]
    try:
        net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return list(lines(net, shapes, depth, 0, ""))


def lines(
    module: nn.Module, shapes: dict[nn.Module, tuple[int, ...]], depth: int, at: int, name: str
) -> Iterator[Layer]:
    if module in shapes:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        yield Layer(at, name, type(module).__name__, shapes[module], parameters)
        at += 1
    if at <= depth:
        for child, inner in module.named_children():
            yield from lines(inner, shapes, depth, at, f"{name}.{child}" if module not in shapes and name else child)


def tensors(output: object) -> Iterator[Tensor]:
    """The tensors of a tuple or list that a module returned."""
    if isinstance(output, tuple | list):
        yield from (item for item in output if isinstance(item, Tensor))
