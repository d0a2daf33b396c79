"""The latents of an update."""

from __future__ import annotations

import torch
from torch import Tensor

from equipoise.compute.distributed import rank, world_size
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, stream

__all__ = ["latents"]


def latents(cfg: TrainConfig, images: int, purpose: Purpose, nimg: int, device: torch.device) -> Tensor:
    """A z for each of this process's `images`, (images, z_dim): its share of the global batch's z."""
    config = cfg.generator
    z = config.prior.draw(images * world_size(), config.z_dim, generator=stream(cfg.seed, purpose, nimg))
    z = z[rank() * images : (rank() + 1) * images]
    if device.type == "cuda":
        z = z.pin_memory()  # so that the host need not wait for the copy
    return z.to(device, non_blocking=True)
