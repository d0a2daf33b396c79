"""What a network costs, counted on the meta device: nothing is computed or stored, so any size takes a moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from equipoise.core.types import ImageSpec

from .base import DiscriminatorConfig, GeneratorConfig
from .bounded import bounded, bytes_of, kept_for_backward
from .head import Head

__all__ = ["Counts", "Layer", "count", "layers", "on_meta", "training_bytes"]

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
            G = generator.build(head.conditioning.generator_spec(spec))
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
