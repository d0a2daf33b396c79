"""What a run shows of itself at every checkpoint: the generator's file and a grid from the same z."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .config import TrainConfig
from .distributed import from_rank_0, world_size
from .files import replace_file, writing
from .sampling import TrainedGenerator, grid, png, sample, save_generator
from .standing import averaged_generator
from .stats import Stats
from .types import ImageSpec

__all__ = ["Snapshots"]

GRID = 100
"""Images in a grid, ten a row: with ten classes, a class a column."""


class Snapshots:
    """Writes generator/, samples/ and environment.txt of a run. Rank 0 writes."""

    def __init__(self, run_dir: Path, cfg: TrainConfig, spec: ImageSpec):
        self.run_dir, self.cfg, self.spec = run_dir, cfg, spec
        from_rank_0(self._write_environment)

    def _write_environment(self) -> None:
        with writing(self.run_dir), (self.run_dir / "environment.txt").open("a") as file:
            file.write(environment())

    def save(self, net: nn.Module, nimg: int, stats: Stats, last_checkpoint: str) -> None:
        """Write both for the averaged generator `net`.

        Raises:
            RunError: if that is impossible; it names the last good checkpoint.
        """
        from_rank_0(lambda: self._write(net, nimg, stats, last_checkpoint))

    def _write(self, net: nn.Module, nimg: int, stats: Stats, last_checkpoint: str) -> None:
        averaged = averaged_generator(net, self.cfg, self.spec)
        generator = TrainedGenerator(averaged, self.cfg.generator, self.spec)
        pixels = grid(np.concatenate([x for x, _ in sample(generator, GRID, seed=self.cfg.seed)]))
        with writing(self.run_dir, kept=f"The last good checkpoint is {last_checkpoint}."):
            save_generator(generator, self.run_dir, nimg)
            folder = self.run_dir / "samples"
            folder.mkdir(exist_ok=True)
            replace_file(folder / f"{nimg:012d}.png", png(pixels))
            stats.image("samples", pixels, nimg)


def environment() -> str:
    """What else a run depends on, a line each; each start of a run adds such a block to environment.txt."""
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
    return "".join(f"{name}: {value}\n" for name, value in lines.items()) + "\n"
