"""Each way to compute a convolution and its gradients, in turn, for layers of the recipes.

    python -m benchmarks.convolutions --batch 128 --rounds 15 --out convolutions.json

A round computes every layer once in every way that `compute.convolutions=measured` would try, forward and backward.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.convolutions import WAYS, Convolution, with_slope_alike, worth_measuring

from .report import machine


class Layer(NamedTuple):
    """A convolution of a network: channels in and out, and the maps that it reads."""

    name: str
    convolution: Convolution
    channels: tuple[int, int]
    kernel: int
    size: int

    def tensors(self, batch: int, dtype: torch.dtype, layout: torch.memory_format) -> tuple[torch.Tensor, ...]:
        """x, w and bias; w and bias in float32, as under autocast."""
        x = torch.randn(batch, self.channels[0], self.size, self.size).to(dtype).contiguous(memory_format=layout)
        shape = self.channels if self.convolution.transposed else self.channels[::-1]
        return x, torch.randn(*shape, self.kernel, self.kernel) / 100, torch.randn(self.channels[1])


LAYERS = (
    Layer("D 512, 6x6 to 3x3", Convolution(False, (2, 2), (1, 1)), (256, 512), 4, 6),
    Layer("D 256, 12x12 to 6x6", Convolution(False, (2, 2), (1, 1)), (128, 256), 4, 12),
    Layer("G 256, 3x3 to 6x6", Convolution(True, (2, 2), (1, 1)), (512, 256), 4, 3),
    Layer("G 128, 6x6 to 12x12", Convolution(True, (2, 2), (1, 1)), (256, 128), 4, 6),
    Layer("G 1, 12x12 to 28x28", Convolution(True, (2, 2), (0, 0)), (128, 1), 6, 12),
    Layer("ResNet 64, 32x32", Convolution(False, (1, 1), (1, 1)), (64, 64), 3, 32),
)
"""Layers to measure. The first five are from `san_digits_conditional`."""


def measure(batch: int, rounds: int) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """Seconds of a forward and backward by layer, precision and layout, and by way."""
    seconds: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for i in track(range(rounds + 1), description="rounds", console=Console(stderr=True)):
        for layer in LAYERS:
            for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
                for layout in (torch.contiguous_format, torch.channels_last):
                    key = layer.name, precision, str(layout).removeprefix("torch.").removesuffix("_format")
                    given = [t.requires_grad_() for t in layer.tensors(batch, dtype, layout)]
                    for way in WAYS[layer.convolution.transposed]:
                        if not worth_measuring(way, layer.convolution, *given[:2]):
                            continue
                        taken = once(layer.convolution, way, given)
                        if i > 0:  # the first round warms up
                            seconds.setdefault(key, {}).setdefault(way, []).append(taken)
    return seconds


def once(convolution: Convolution, way: str, given: list[torch.Tensor]) -> float:
    x, w, bias = given
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = WAYS[convolution.transposed][way](convolution, x, with_slope_alike(w), bias)
    torch.autograd.grad(y, given, torch.ones_like(y))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()
    keep_freed_memory()
    seconds = measure(args.batch, args.rounds)

    names = list(dict.fromkeys(way for ways in WAYS.values() for way in ways))
    table = Table("layer", "precision", "layout", *(f"{name}, ms" for name in names))
    for key, ways in seconds.items():
        medians = [f"{1000 * statistics.median(ways[name]):.1f}" if name in ways else "" for name in names]
        table.add_row(*key, *medians)
    Console(width=140).print(table)
    if args.out:
        rows = [{"layer": key, "seconds": ways} for key, ways in seconds.items()]
        args.out.write_text(json.dumps(machine() | {"batch": args.batch, "layers": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
