"""Model of the needs of BigGAN at 256x256 on 64 GPUs, from counts on the meta device. Nothing is measured.

    python -m benchmarks.biggan_on_paper

Prints Markdown tables: operations, memory of a GPU, traffic between GPUs, and days. The assumptions are the constants
below; docs/cost.md gives the reasons.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.config import TrainConfig, override
from equipoise.core.types import ImageSpec
from equipoise.models import BigGANDiscriminator, BigGANGenerator
from equipoise.models.counts import FLOAT, count, on_meta, training_bytes
from equipoise.nn import SyncBatchNorm
from equipoise.nn.residual import Body, ResidualGenerator
from equipoise.recipes import load
from equipoise.train import iteration_flops

from .report import markdown

__all__ = ["Needs", "days", "needs", "published"]

UPDATES = 165_000  # of G: table 1 of the paper, for 128x128; the paper gives no number for 256x256
PEAKS = {"A100": 312e12, "H100": 989e12}  # dense bfloat16 matrix operations per second, as stated by the maker
SHARES = (0.2, 0.4)  # of the peak, while a GPU computes
LINKS = (25e9, 200e9)  # bytes per second that each GPU sends, and receives at the same time
LATENCY = 50e-6  # seconds of an exchange of a few numbers among all GPUs
CORES, CORE_PEAK, HOURS = 256, 123e12 / 2, (24, 48)  # the authors' TPU v3 cores for 256x256, and their hours
GIB = 2**30


class Needs(NamedTuple):
    """Needs of an iteration: d_steps updates of D and one of G, each on `batch` images of all `gpus` GPUs.

    flops: floating-point operations of a GPU.
    weights, activations: bytes of a GPU, in float32; the rest of a training step's memory is not counted.
    reduced: bytes of gradients that a GPU sends, and receives, by ring all-reduces.
    exchanges, exchanged: number of exchanges of batch norm's statistics, and bytes that a GPU sends for them.
    images, pixels: number of real images read by all GPUs together, and bytes of their pixels.
    """

    gpus: int
    batch: int
    flops: int
    weights: int
    activations: int
    reduced: float
    exchanges: int
    exchanged: float
    images: int
    pixels: int


def published(*, checkpoint: bool) -> tuple[TrainConfig, ImageSpec]:
    """BigGAN for 256x256 colour images of 1000 classes: width 96, z of length 140, batch 2048, two updates of D."""
    cfg, _ = load("biggan")
    changes = {"generator.z_dim": 140, "generator.checkpoint": checkpoint, "discriminator.checkpoint": checkpoint}
    return override(cfg, changes), ImageSpec(256, 3, 1000)


def needs(cfg: TrainConfig, spec: ImageSpec, gpus: int) -> Needs:
    """Needs of a BigGAN, whose two networks share the value of `checkpoint`."""
    assert isinstance(cfg.generator, BigGANGenerator)
    assert isinstance(cfg.discriminator, BigGANDiscriminator)
    assert isinstance(cfg.d_steps, int)
    again = cfg.generator.checkpoint
    G, D, of_g, of_d = on_meta(cfg.generator, cfg.discriminator, cfg.head, spec)
    g, d, share = count(G, of_g), count(D, of_d), cfg.batch_size // gpus
    weights = training_bytes(g, d, 0)
    activations = training_bytes(g, d, share) - weights
    if again:  # a single block at a time holds all its activations
        activations += share * max(of_blocks(G, of_g) + of_blocks(D, of_d))
    ring = 2 * (gpus - 1) / gpus  # a GPU sends, and receives, this multiple of its own bytes in an all-reduce
    norms = [m.num_features for m in G.modules() if isinstance(m, SyncBatchNorm)]
    # Every forward of G, and the backward of its update. Checkpointed blocks have one forward more; the last norm not.
    channels = (cfg.d_steps + 2) * norms + again * norms[:-1]
    return Needs(
        gpus,
        cfg.batch_size,
        flops=iteration_flops(replace(cfg, batch_size=share), spec),  # each GPU computes the regulariser of weights
        weights=weights,
        activations=activations,
        reduced=ring * FLOAT * (cfg.d_steps * d.parameters + g.parameters),
        exchanges=len(channels),
        exchanged=ring * FLOAT * 3 * gpus * sum(channels),  # count, mean and variance of every GPU
        images=cfg.d_steps * cfg.batch_size,
        pixels=cfg.d_steps * cfg.batch_size * spec.channels * spec.resolution**2,
    )


def of_blocks(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[int]:
    """Bytes per image that each block of a network keeps for its backward."""
    given: dict[nn.Module, tuple[Tensor, ...]] = {}

    def note(block: nn.Module, received: tuple[Tensor, ...]) -> None:
        given[block] = received

    blocks = list(chain.from_iterable(m.blocks for m in net.modules() if isinstance(m, ResidualGenerator | Body)))
    hooks = [block.register_forward_pre_hook(note) for block in blocks]
    with torch.no_grad():
        net(*inputs)
    for hook in hooks:
        hook.remove()
    return [count(block, given[block]).stored for block in blocks]


class Seconds(NamedTuple):
    """Seconds of the parts of an iteration, one after the other."""

    computing: float
    gradients: float
    statistics: float


def seconds(n: Needs, peak: float, share: float, link: float) -> Seconds:
    return Seconds(n.flops / (share * peak), n.reduced / link, n.exchanges * LATENCY + n.exchanged / link)


def days(of: Seconds) -> float:
    """Days of the full training."""
    return UPDATES * sum(of) / 86400


def tables(plain: Needs, again: Needs) -> str:
    """Tables of the needs without and with checkpointed blocks."""
    quantities: dict[str, Callable[[Needs], str]] = {
        "TFLOP per image of the batch": lambda n: f"{n.gpus * n.flops / n.batch / 1e12:.2f}",
        "PFLOP per iteration": lambda n: f"{n.gpus * n.flops / 1e15:.2f}",
        "GiB per GPU: weights, gradients, Adam, average": lambda n: f"{n.weights / GIB:.1f}",
        "GiB per GPU: activations, float32": lambda n: f"{n.activations / GIB:.1f}",
        "GiB per GPU: activations, bfloat16": lambda n: f"{n.activations / 2 / GIB:.1f}",
        "GB of gradients that a GPU sends per iteration": lambda n: f"{n.reduced / 1e9:.2f}",
        "exchanges of batch norm per iteration": lambda n: f"{n.exchanges}",
        "MB of statistics that a GPU sends per iteration": lambda n: f"{n.exchanged / 1e6:.0f}",
    }
    rows = [[name, of(plain), of(again)] for name, of in quantities.items()]
    text = markdown([f"batch {plain.batch} on {plain.gpus} GPUs", "plain", "checkpointed"], rows)
    rows = []
    for (name, peak), share, link in product(PEAKS.items(), SHARES, LINKS):
        own = seconds(plain, peak, share, link)
        reading = (f"{plain.images / sum(own):.0f}", f"{plain.pixels / sum(own) / 1e9:.1f}")
        numbers = (*(f"{1000 * part:.0f}" for part in own), *reading)
        ends = (f"{days(of):.1f}" for of in (own, seconds(again, peak, share, link)))
        rows.append([name, f"{share:.0%}", f"{link / 1e9:.0f} GB/s", *numbers, *ends])
    head = ["GPU", "share of peak", "link", "ms: computing", "gradients", "statistics"]
    text += "\n" + markdown([*head, "real images/s", "GB/s of pixels", "days", "days, checkpointed"], rows)
    total = UPDATES * plain.gpus * plain.flops
    low, high = (total / (CORES * CORE_PEAK * 3600 * hours) for hours in reversed(HOURS))
    return text + (
        f"\nIn all {total:.2e} operations. On the authors' {CORES} cores they would be {low:.0%} to {high:.0%} of the "
        f"peak for {HOURS[1]} to {HOURS[0]} hours.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=64)
    args = parser.parse_args()
    print(tables(*(needs(*published(checkpoint=checkpoint), args.gpus) for checkpoint in (False, True))))


if __name__ == "__main__":
    main()
