"""What a run shows of itself at a checkpoint: the generator's file, a grid from the same z, and how good it is."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0
from equipoise.compute.shares import rank_0_first
from equipoise.config import TrainConfig
from equipoise.core.files import read_file, read_json, replace_file, set_aside, writing
from equipoise.core.tensorfile import unpack
from equipoise.core.types import ImageSpec
from equipoise.data import Dataset
from equipoise.evaluate import (
    Evaluation,
    Evaluator,
    TrainedDiscriminator,
    of_dataset,
    of_generator,
    open_source,
    rebuild,
)
from equipoise.generate import Generator, averaged_generator, grid, png, sample, save_generator
from equipoise.generate.generator import IN_RUN
from equipoise.runs import Stats, require_finite

__all__ = ["Evaluations", "Snapshots"]

GRID = 100
"""Images in a grid, ten a row: with ten classes, a class a column."""


def averaged(net: nn.Module, cfg: TrainConfig, spec: ImageSpec, nimg: int) -> Generator:
    """The averaged generator `net` of a run on the data of `spec`, with standing statistics."""
    of_g = cfg.head.conditioning.generator_spec(spec)
    return Generator(averaged_generator(net, cfg, spec), cfg.generator, of_g, nimg=nimg)


class Snapshots:
    """Writes generator/ and samples/ of a run. Rank 0 writes."""

    def __init__(self, run_dir: Path, cfg: TrainConfig, spec: ImageSpec):
        self.run_dir, self.cfg, self.spec = run_dir, cfg, spec

    def missing(self, nimg: int) -> bool:
        """Whether the run was killed between its checkpoint at `nimg` and the grid, which is written last."""
        return nimg > 0 and from_rank_0(lambda: not self._grid(nimg).exists())

    def _grid(self, nimg: int) -> Path:
        return self.run_dir / "samples" / f"{nimg:012d}.png"

    def save(self, net: nn.Module, nimg: int, last_checkpoint: str, stats: Stats | None = None) -> None:
        """Write the generator and its grid for the averaged generator `net`. stats: shows the grid in TensorBoard too.

        Raises:
            RunError: if they cannot be written; it names the last good checkpoint.
        """
        from_rank_0(lambda: self._write(net, nimg, last_checkpoint, stats))

    def _write(self, net: nn.Module, nimg: int, last_checkpoint: str, stats: Stats | None) -> None:
        generator = averaged(net, self.cfg, self.spec, nimg)
        pixels = grid(np.concatenate([x for x, _ in sample(generator, GRID, seed=self.cfg.seed)]))
        with writing(self.run_dir, kept=f"The last good checkpoint is {last_checkpoint}."):
            save_generator(generator, self.run_dir / IN_RUN)
            self._grid(nimg).parent.mkdir(exist_ok=True)
            replace_file(self._grid(nimg), png(pixels))
            if stats is not None:
                stats.image("samples", pixels, nimg)


class Evaluations:
    """Measures the averaged generator as `cfg.evaluation` says, and keeps the best one in best/, which rank 0 writes.

    every_kimg: how often; inf without an evaluation.
    D: the run's discriminator, for the metrics that ask it; a copy of it is what they see.

    Raises:
        ValueError: if the reference set or the feature network is missing, there are too few images, or a metric
            cannot be asked of this D.
    """

    def __init__(self, run_dir: Path, cfg: TrainConfig, dataset: Dataset, D: nn.Module | None = None):
        self.folder, self.cfg, self.spec, self.D = run_dir / "best", cfg, dataset.spec, D
        self.every_kimg = math.inf if cfg.evaluation is None else cfg.evaluation.every_kimg
        self._open(dataset)

    def _open(self, dataset: Dataset) -> None:
        settings = self.cfg.evaluation
        if settings is None:
            return
        own, against = of_dataset(repr(self.cfg.data), dataset), settings.against
        self.evaluator = Evaluator(
            own if against is None else rank_0_first(lambda: open_source(against)),
            metrics=settings.metrics,
            num=settings.num,
            seed=settings.seed,
            features=settings.features,
            weights=settings.weights,
        )
        self.evaluator.check_channels(own)
        self.evaluator.discriminator(dataclasses.replace(own, discriminator=self._discriminator(0)))

    def _discriminator(self, nimg: int) -> Callable[[], TrainedDiscriminator] | None:
        """As a `Source` has it: that of rank 0, which a checkpoint of this moment holds."""
        D = self.D
        if D is None:
            return None
        return lambda: rebuild(
            self.cfg,
            self.spec,
            from_rank_0(lambda: {name: value.cpu() for name, value in D.state_dict().items()}),
            nimg,
            next(D.parameters()).device,
        )

    def of(self, net: nn.Module, nimg: int, last_checkpoint: str) -> dict[str, Tensor]:
        """The numbers of the averaged generator `net` as statistics, "eval/frechet" and so on; none without evaluation.

        Raises:
            RunError: if a weight is NaN or Inf, or best/ cannot be written; it names the last good checkpoint.
        """
        if self.cfg.evaluation is None:
            return {}
        require_finite({"ema": net} | ({} if self.D is None else {"D": self.D}), nimg, last_checkpoint)
        numbers = self._measure(net, nimg, last_checkpoint)
        device = next(net.parameters()).device
        return {f"eval/{name}": torch.tensor(value, device=device) for name, value in numbers.items()}

    def _measure(self, net: nn.Module, nimg: int, last_checkpoint: str) -> dict[str, float]:
        assert self.cfg.evaluation is not None
        generator = averaged(net, self.cfg, self.spec, nimg)
        name = f"the averaged generator at nimg={nimg}"
        found = self.evaluator(of_generator(name, generator, None, self._discriminator(nimg)))
        if self.cfg.evaluation.deciding not in found.numbers:
            raise ValueError(
                f"best={self.cfg.evaluation.deciding} cannot be told: this run asks its generator for no classes that "
                f"the feature network knows. Name another of {', '.join(found.numbers)}"
            )
        from_rank_0(lambda: self._keep(generator, found, nimg, last_checkpoint))
        return {name: number.value for name, number in found.numbers.items()}

    def _keep(self, generator: Generator, found: Evaluation, nimg: int, last_checkpoint: str) -> None:
        """In best/, if it is better."""
        assert self.cfg.evaluation is not None
        if not self._better(found):
            return
        with writing(self.folder, kept=f"The last good checkpoint is {last_checkpoint}."):
            save_generator(generator, self.folder / IN_RUN)
            about = {"nimg": nimg, "best": self.cfg.evaluation.deciding} | found.report
            replace_file(self.folder / "evaluation.json", (json.dumps(about, indent=1) + "\n").encode())

    def _better(self, found: Evaluation) -> bool:
        """Whether it is better than the one in best/, or that was measured otherwise.

        If its report or its generator is damaged, best/ is set aside, with a warning on stderr.
        """
        assert self.cfg.evaluation is not None
        name, path = self.cfg.evaluation.deciding, self.folder / "evaluation.json"
        if not path.exists():
            return True
        try:
            unpack(self.folder / IN_RUN)
            kept = read_json(read_file(path), path.name)
            if scale(kept, name) != scale(json.loads(found.json()), name):
                return True
            old, new = (number(report, name) for report in (kept, found.report))
            if not math.isfinite(old["value"]):
                raise ValueError(f"its {name} is {old['value']}")
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StopIteration) as error:
            reason = error if isinstance(error, OSError | ValueError) else f"{path.name} is no report"
            with writing(self.folder):
                aside = set_aside(self.folder)  # an intact generator may be the best there was
            print(
                f"warning: {self.folder} renamed to {aside.name}, and the best is chosen anew: {reason}",
                file=sys.stderr,
            )
            return True
        return bool(new["value"] < old["value"] if new["better"] == "lower" else new["value"] > old["value"])


def scale(report: Mapping[str, Any], name: str) -> list[Any]:
    """What a number of a report depends on besides the generator."""
    of = [metric["settings"] for metric in report["metrics"].values() if name in metric["numbers"]]
    return [of, report["images"]["num"], *(report[key] for key in ("against", "seed", "features"))]


def number(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A number of a report by its name."""
    found: Mapping[str, Any] = next(m["numbers"][name] for m in report["metrics"].values() if name in m["numbers"])
    return found
