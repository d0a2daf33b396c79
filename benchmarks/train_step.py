"""One training iteration, ours against the loop that a researcher writes, in turn within one process.

    python -m benchmarks.train_step --recipe san_digits_conditional --rounds 30 --out speed.json

The plain loop has the same networks, loss, batch and learning rates: the generated images are computed with a gradient
and then detached, D's weights keep requiring a gradient in G's step, and the optimisers are PyTorch's defaults.
Each round times one iteration of each, so both meet the same noise; what counts is the ratio of a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from equipoise.config import TrainConfig
from equipoise.data import InfiniteBatches
from equipoise.objective import discriminator_loss, generator_loss
from equipoise.optim import Adam
from equipoise.recipes import load
from equipoise.schedules import at
from equipoise.train import GAN, d_step, g_step
from equipoise.types import Batch, ImageSpec

from .report import machine

Iteration = Callable[[Batch, int], None]


def ours(cfg: TrainConfig, spec: ImageSpec) -> Iteration:
    gan = GAN.build(cfg, spec)
    ema = cfg.ema.build(gan.G)

    def iteration(batch: Batch, nimg: int) -> None:
        d_step(gan, batch, nimg)
        g_step(gan, batch, nimg)
        ema.update(gan.G, nimg + cfg.batch_size, cfg.batch_size)

    return iteration


def plain(cfg: TrainConfig, spec: ImageSpec) -> Iteration:
    if not isinstance(cfg.g_optim, Adam) or not isinstance(cfg.d_optim, Adam) or cfg.penalties or cfg.d_steps != 1:
        raise ValueError("the plain loop is written for Adam, without penalties and with one D step")
    gan = GAN.build(cfg, spec)
    G, D = gan.G.requires_grad_(True), gan.D.requires_grad_(True)
    g_optim, d_optim = (
        torch.optim.Adam(net.parameters(), lr=at(optim.lr, 0), betas=(at(optim.betas[0], 0), at(optim.betas[1], 0)))
        for net, optim in ((G, cfg.g_optim), (D, cfg.d_optim))
    )

    def iteration(batch: Batch, nimg: int) -> None:  # noqa: ARG001
        d_optim.zero_grad()
        fake = G(torch.randn(len(batch.x), cfg.generator.z_dim), batch.y)
        discriminator_loss(cfg.loss, D(batch.x, batch.y), D(fake.detach(), batch.y)).backward()
        d_optim.step()
        g_optim.zero_grad()
        fake = G(torch.randn(len(batch.x), cfg.generator.z_dim), batch.y)
        generator_loss(cfg.loss, D(fake, batch.y)).backward()
        g_optim.step()

    return iteration


def measure(cfg: TrainConfig, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Seconds per iteration of each loop, by round."""
    dataset = cfg.data.build()
    batches = InfiniteBatches(dataset, cfg.batch_size, seed=cfg.seed)
    loops = {"ours": ours(cfg, dataset.spec), "plain": plain(cfg, dataset.spec)}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for i in track(range(warmup + rounds), description="rounds"):
        batch = next(batches)
        for name in sorted(loops, reverse=bool(i % 2)):  # neither is always the first of a round
            start = time.perf_counter()
            loops[name](batch, i * cfg.batch_size)
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--recipe", default="san_digits_conditional")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()

    cfg, _ = load(args.recipe)
    seconds = measure(cfg, args.rounds, args.warmup)
    table = Table("loop", "median s", "quartiles s", "images/s")
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        table.add_row(name, f"{middle:.4f}", f"{low:.4f} - {high:.4f}", f"{cfg.batch_size / middle:.0f}")
    ratios = [slow / fast for slow, fast in zip(seconds["plain"], seconds["ours"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    console = Console()
    console.print(table)
    console.print(f"plain / ours, by round: median {middle:.3f}, quartiles {low:.3f} - {high:.3f}")
    if args.out:
        about = {"recipe": args.recipe, "batch_size": cfg.batch_size}
        about |= machine()
        args.out.write_text(json.dumps(about | {"seconds": seconds, "ratio_median": middle}, indent=1) + "\n")


if __name__ == "__main__":
    main()
