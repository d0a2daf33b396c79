"""Costs of a network, counted on the meta device: nothing is computed or stored, so any size takes a moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from equipoise.core.types import ImageSpec

from .base import DiscriminatorConfig, GeneratorConfig, require_shape
from .bounded import bounded, bytes_of, kept_for_backward
from .head import Head

__all__ = ["Counts", "Layer", "count", "layers", "on_meta", "training_bytes"]

BATCH = 4
"""Images in the counted forward; counts are divided by it. Layers that compare images of a batch need four."""

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
    """A line of a network's picture.

    depth: number of modules around it.  shape: of its output, for one image.
    parameters: of the module and all modules inside it.
    """

    depth: int
    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


def on_meta(
    generator: GeneratorConfig, discriminator: DiscriminatorConfig, head: Head, spec: ImageSpec
) -> tuple[nn.Module, nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """G, D, and the inputs of each, (z, y) and (x, y), all on the meta device.

    Raises:
        ValueError: if the networks or the head are not defined for the data, or a network is too large to be counted.
    """
    require_shape(spec, generator, discriminator)
    with torch.device("meta"):
        with bounded("generator"):
            G = generator.build(head.conditioning.generator_spec(spec))
        with bounded("discriminator"):
            D = head.build(discriminator.build, spec)
        y = torch.zeros(BATCH, dtype=torch.int64)
        z = torch.randn(BATCH, generator.z_dim)
        x = torch.randn(BATCH, *spec.image)
    return G, D, (z, y), (x, y)


def count(net: nn.Module, inputs: tuple[Tensor, ...]) -> Counts:
    """Costs of ``net(*inputs)`` in training mode, per row of the inputs. Work shared by the rows is divided too.

    Some papers count a multiply-add as two FLOPs, others as one.
    """
    with FlopCounterMode(display=False) as counter, kept_for_backward(net) as kept:
        output = net.train().requires_grad_()(*inputs)
    del output
    stored = bytes_of(kept)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Counts(parameters, counter.get_total_flops() // (2 * len(inputs[0])), stored // len(inputs[0]))


def training_bytes(G: Counts, D: Counts, batch: int) -> int:
    """Peak bytes of a step with Adam, in float32, for `batch` images on one device.

    Counted are the weights, gradients and Adam's two averages of both networks, the average of G, and activations. The
    activations are the larger of two: D on real and generated images in D's step, or G and D in G's step. Penalties,
    the workspace of convolutions and the allocator's waste are left out. So it is a lower bound, for comparing sizes.
    """
    weights = FLOAT * (5 * G.parameters + 4 * D.parameters)
    return weights + batch * max(2 * D.stored, G.stored + D.stored)


def layers(net: nn.Module, inputs: tuple[Tensor, ...], *, depth: int) -> list[Layer]:
    """The modules of ``net(*inputs)``, nested down to `depth`, in the order of their registration.

    Modules that are not called are left out. A module called several times gives its last call.
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
