"""The interface of a metric that asks the generator itself, beside or in place of its images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVarTuple

from torch import Tensor, nn

from equipoise.core.randomness import Purpose, stream

from .base import AskedGenerator, Metric

__all__ = ["OfGenerator", "drawn", "mapped", "redraw_noise", "synthesised"]

Answers = TypeVarTuple("Answers")


class OfGenerator(Metric[*Answers]):
    """A metric that draws images of its own from the generator."""

    @abstractmethod
    def check(self, G: AskedGenerator) -> None:
        """Raises ValueError, before any work, if this generator cannot be asked."""


def mapped(net: nn.Module, z: Tensor, y: Tensor | None) -> Tensor:
    """Styles (N, num_ws, w_dim) of latents, in eval mode of a style generator."""
    ws: Tensor = net.get_submodule("mapping")(z, y)
    return ws


def synthesised(net: nn.Module, ws: Tensor) -> Tensor:
    """Images (N, C, H, W) of styles, with the stored noise. Raises ValueError for NaN and Inf."""
    return finite(net.get_submodule("synthesis")(ws, noise_mode="const"))


def drawn(net: nn.Module, z: Tensor, y: Tensor | None) -> Tensor:
    """Images (N, C, H, W) of latents. Raises ValueError for NaN and Inf."""
    return finite(net(z, y))


def finite(x: Tensor) -> Tensor:
    if not x.isfinite().all():
        raise ValueError("the generator draws images that hold NaN or Inf: the run has diverged")
    return x


def redraw_noise(net: nn.Module, seed: int, batch: int) -> None:
    """Fill the stored noise images of a style generator, its buffers `noise_const`, with new draws from N(0, 1).

    batch: number of the batch. Equal seeds and batches draw equal noise.
    """
    generator = stream(seed, Purpose.METRIC_NOISE, batch)
    for name, buffer in net.named_buffers():
        if name.rpartition(".")[2] == "noise_const":
            buffer.copy_(buffer.new_empty(buffer.shape, device="cpu").normal_(generator=generator))
