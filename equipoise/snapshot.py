"""What a run shows of itself at every checkpoint: the generator's file and a grid from the same z."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .config import TrainConfig
from .distributed import rank, world_size
from .files import replace_file, writing
from .sampling import TrainedGenerator, grid, sample, save_generator, save_png
from .stats import Stats
from .types import ImageSpec

__all__ = ["Snapshots"]

GRID = 100
"""Images in a grid, ten a row: with ten classes, a class a column."""


class Snapshots:
    """Writes generator/, samples/ and environment.txt of a run. Rank 0 writes."""

    def __init__(self, run_dir: Path, cfg: TrainConfig, spec: ImageSpec):
        self.run_dir, self.cfg, self.spec = run_dir, cfg, spec
        if rank() == 0:
            with writing(run_dir):
                replace_file(run_dir / "environment.txt", environment().encode())

    def save(self, net: nn.Module, nimg: int, stats: Stats) -> None:
        if rank() != 0:
            return
        save_generator(net, self.cfg, self.spec, self.run_dir, nimg)
        generator = TrainedGenerator(net, self.cfg.generator, self.spec)
        pixels = grid(np.concatenate([x for x, _ in sample(generator, GRID, seed=self.cfg.seed)]))
        folder = self.run_dir / "samples"
        with writing(folder):
            folder.mkdir(exist_ok=True)
            save_png(pixels, folder / f"{nimg:012d}.png")
        stats.image("samples", pixels, nimg)


def environment() -> str:
    """What else a run depends on, a line each."""
    from . import __version__

    lines = {
        "equipoise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "command": " ".join(sys.argv),
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items())
