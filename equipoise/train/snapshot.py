"""Pictures of a run: the generator's file with a grid from the same z, and the first grids, of real pictures too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from equipoise.compute.distributed import from_rank_0
from equipoise.config import TrainConfig
from equipoise.core.files import replace_file, writing
from equipoise.core.types import ImageSpec
from equipoise.data import Dataset
from equipoise.data.order import stream
from equipoise.generate import Generator, averaged_generator, grid, png, save_generator
from equipoise.generate.generator import IN_RUN
from equipoise.generate.standing import PASSES
from equipoise.runs import Stats

from .events import Moment

__all__ = ["Snapshots", "averaged"]

GRID = 100
"""Images in a grid, ten per row: with ten classes, each column is a class."""
AMONG = 20_000
"""Most pictures of a data set from which the real ones to show are chosen."""


def averaged(net: nn.Module, cfg: TrainConfig, spec: ImageSpec, nimg: int, *, passes: int = PASSES) -> Generator:
    """The averaged generator `net` of a run on the data of `spec`, with standing statistics over `passes` batches."""
    of_g = cfg.spec_of_g(spec)
    return Generator(averaged_generator(net, cfg, spec, passes=passes), cfg.generator, of_g, nimg=nimg)


def real_pictures(dataset: Dataset, num: int, seed: int, classes: int) -> NDArray[np.uint8]:
    """Up to `num` pictures of `dataset` in a random order, (n, H, W, C).

    classes: 0, or the number of classes that G reads. Picture i then has the class of image i in a grid of G's images;
        a class without pictures is left out.
    """
    chosen = stream(seed, len(dataset), 0, min(len(dataset), AMONG))
    if classes and dataset.labels is not None:
        of_class = [chosen[dataset.labels[chosen] == y] for y in range(min(classes, num))]
        turns = ((of_class[i % classes], i // classes) for i in range(num))
        chosen = np.array([pictures[turn % len(pictures)] for pictures, turn in turns if len(pictures)])
    return dataset.read(chosen[:num]).transpose(0, 2, 3, 1)


class Snapshots:
    """Write generator/ and samples/ of a run, as an event of the loop. Rank 0 writes."""

    def __init__(self, run_dir: Path, cfg: TrainConfig, spec: ImageSpec):
        self.run_dir, self.cfg, self.spec = run_dir, cfg, spec

    def __call__(self, now: Moment) -> None:
        if now.drawn:
            self.save(now.ema.model, now.nimg, now.checkpoints.last, now.stats)

    def begin(self, net: nn.Module, dataset: Dataset, nimg: int) -> None:
        """Write the grid of real pictures, and of the averaged generator `net` before training, unless they exist.

        dataset: the pictures that D is trained on.

        Raises:
            ValueError, RunError: if pictures cannot be read, or grids cannot be written.
        """
        from_rank_0(lambda: self._begin(net, dataset, nimg))

    def _begin(self, net: nn.Module, dataset: Dataset, nimg: int) -> None:
        classes = self.cfg.spec_of_g(self.spec).num_classes
        pictures = {}
        if not (real := self.run_dir / "samples" / "real.png").exists():
            pictures[real] = real_pictures(dataset, GRID, self.cfg.seed, classes)
        if nimg == 0 and not self._grid(0).exists():
            untrained = averaged(net, self.cfg, self.spec, 0, passes=1)
            pictures[self._grid(0)] = untrained.sample(GRID, seed=self.cfg.seed)
        with writing(self.run_dir):
            for path, pixels in pictures.items():
                self._draw(path, pixels)

    def _draw(self, path: Path, pixels: NDArray[np.uint8]) -> tuple[bytes, tuple[int, ...]]:
        """Write a grid of images (N, H, W, C). Returns the file, and the shape of the picture."""
        picture = grid(pixels)
        encoded = png(picture)
        path.parent.mkdir(exist_ok=True)
        replace_file(path, encoded)
        return encoded, picture.shape

    def missing(self, nimg: int) -> bool:
        """Whether the run was killed between its checkpoint at `nimg` and the grid, which is written last."""
        return nimg > 0 and from_rank_0(lambda: not self._grid(nimg).exists())

    def _grid(self, nimg: int) -> Path:
        return self.run_dir / "samples" / f"{nimg:012d}.png"

    def save(self, net: nn.Module, nimg: int, last_checkpoint: str, stats: Stats | None = None) -> None:
        """Write the averaged generator `net` and its grid. stats: shows the grid in TensorBoard too.

        Raises:
            RunError: if they cannot be written. It names the last good checkpoint.
        """
        from_rank_0(lambda: self._write(net, nimg, last_checkpoint, stats))

    def _write(self, net: nn.Module, nimg: int, last_checkpoint: str, stats: Stats | None) -> None:
        generator = averaged(net, self.cfg, self.spec, nimg)
        pixels = generator.sample(GRID, seed=self.cfg.seed)
        with writing(self.run_dir, kept=f"The last good checkpoint is {last_checkpoint}."):
            save_generator(generator, self.run_dir / IN_RUN)
            encoded, shape = self._draw(self._grid(nimg), pixels)
            if stats is not None:
                stats.image("samples", encoded, shape, nimg)
