"""The speed of a config on this machine, measured before a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from equipoise.augment import ADA
from equipoise.compute.convolutions import ready
from equipoise.config import TrainConfig
from equipoise.core.types import Batch, ImageSpec
from equipoise.rules import NoGrowth

from .cost import mean_costs
from .gan import GAN

__all__ = ["images_per_second"]

AUGMENTED = 0.5
"""The probability of ADA's transforms during the measurement."""
ROUNDS = 2


def images_per_second(cfg: TrainConfig, spec: ImageSpec, device: torch.device | str = "cpu") -> float:
    """Real images per second of updates on `device` at full size, without data loading, grids and checkpoints.

    Every kind of update (with and without the lazy terms) is run once to warm up, then timed twice; the shorter time
    counts with its share of the updates. Seconds for small networks on a CPU.
    """
    augment = replace(cfg.augment, initial=AUGMENTED) if isinstance(cfg.augment, ADA) else cfg.augment
    with torch.random.fork_rng():
        batch_size = cfg.growth.batches(spec.resolution, cfg.batch_size)[-1][1]
        cfg = replace(cfg, augment=augment, start=None, growth=NoGrowth(), batch_size=batch_size)
        gan = GAN.build(cfg, spec, device)
        x = torch.rand(cfg.batch_size, *spec.image, device=device) * 2 - 1
        y = torch.arange(cfg.batch_size, device=device) % spec.num_classes if spec.num_classes else None
        batch = Batch(x, y)

        def seconds(step: Callable[[int], object], update: int) -> float:
            best = float("inf")
            for turn in range(ROUNDS + 1):
                start = time.perf_counter()
                step(update)
                ready(gan.compute.device)
                if turn > 0:
                    best = min(best, time.perf_counter() - start)
            return best

        d, g = mean_costs(gan, batch, seconds)
    d_steps = cfg.d_steps if isinstance(cfg.d_steps, int) else 1
    return d_steps * cfg.batch_size / (d_steps * d + g)
