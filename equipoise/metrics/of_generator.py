"""The interface of a metric that asks the generator itself, beside or in place of its images."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVarTuple

from torch import nn

from equipoise.core.randomness import Purpose, stream

from .base import AskedGenerator, Metric

__all__ = ["OfGenerator", "redraw_noise"]

Answers = TypeVarTuple("Answers")


class OfGenerator(Metric[*Answers]):
    """A metric that draws images of its own from the generator."""

    @abstractmethod
    def check(self, G: AskedGenerator) -> None:
        """Raises ValueError, before any work, if this generator cannot be asked."""


def redraw_noise(net: nn.Module, seed: int, batch: int) -> None:
    """Fill the stored noise images of a style generator, its buffers `noise_const`, with new draws from N(0, 1).

    batch: number of the batch. Equal seeds and batches draw equal noise.
    """
    generator = stream(seed, Purpose.METRIC_NOISE, batch)
    for name, buffer in net.named_buffers():
        if name.rpartition(".")[2] == "noise_const":
            buffer.copy_(buffer.new_empty(buffer.shape, device="cpu").normal_(generator=generator))
