"""Evaluations while a run trains, and the best generator so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from equipoise.compute.distributed import from_rank_0
from equipoise.compute.shares import rank_0_first
from equipoise.config import TrainConfig
from equipoise.data import Dataset
from equipoise.evaluate import (
    Evaluator,
    TrainedDiscriminator,
    of_dataset,
    of_generator,
    open_source,
    rebuild,
)
from equipoise.generate import Generator
from equipoise.runs import require_finite

from .best import Best
from .events import Moment
from .snapshot import averaged

__all__ = ["Evaluations"]


class Evaluations:
    """Measure the averaged generator as `cfg.report.evaluation` says, as an event of the loop.

    The best generator so far is kept in best/. Rank 0 writes it.

    D: the run's discriminator, for metrics that need one. They get a copy.
    G: the run's generator. Metrics that ask a generator are checked with it; they get a copy of the averaged one.

    Raises:
        ValueError: if the reference set or the feature network is missing, there are too few images, or a metric
            does not work with this D or G.
    """

    def __init__(
        self,
        run_dir: Path,
        cfg: TrainConfig,
        dataset: Dataset,
        D: nn.Module | None = None,
        G: nn.Module | None = None,
    ):
        self.cfg, self.spec, self.D, self.G, self.settings = cfg, dataset.spec, D, G, cfg.report.evaluation
        self.folder = run_dir / "best"
        self._open(dataset)

    def __call__(self, now: Moment) -> None:
        if now.evaluated:
            now.stats.add(self.of(now.ema.model, now.nimg, now.checkpoints.last), now.nimg)

    def _open(self, dataset: Dataset) -> None:
        settings = self.settings
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
            device=None if self.D is None else next(self.D.parameters()).device,
        )
        self.evaluator.check_channels(own)
        self.evaluator.discriminator(dataclasses.replace(own, discriminator=self._discriminator(0)))
        if self.G is not None:
            generator = Generator(self.G, self.cfg.generator, self.cfg.spec_of_g(self.spec))
            self.evaluator.generator(dataclasses.replace(own, generator=generator))

    def _discriminator(self, nimg: int) -> Callable[[], TrainedDiscriminator] | None:
        """A `Source`'s discriminator: a copy of rank 0's D at this moment, as a checkpoint would hold it."""
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
        """Metrics of the averaged generator `net` as statistics: "eval/frechet" and so on; empty without evaluation.

        Raises:
            RunError: if a weight is NaN or Inf, or best/ cannot be written. It names the last good checkpoint.
        """
        if self.settings is None:
            return {}
        require_finite({"ema": net} | ({} if self.D is None else {"D": self.D}), nimg, last_checkpoint)
        numbers = self._measure(net, nimg, last_checkpoint)
        device = next(net.parameters()).device
        return {f"eval/{name}": torch.tensor(value, device=device) for name, value in numbers.items()}

    def _measure(self, net: nn.Module, nimg: int, last_checkpoint: str) -> dict[str, float]:
        assert self.settings is not None
        generator = averaged(net, self.cfg, self.spec, nimg)
        name = f"the averaged generator at nimg={nimg}"
        found = self.evaluator(of_generator(name, generator, None, self._discriminator(nimg)))
        if self.settings.deciding not in found.numbers:
            raise ValueError(
                f"best={self.settings.deciding} cannot be measured: this run's generator is not asked for classes that "
                f"the feature network knows. Name another of {', '.join(found.numbers)}"
            )
        best = Best(self.folder, self.settings.deciding)
        from_rank_0(lambda: best.keep(generator, found, nimg, last_checkpoint))
        return {name: number.value for name, number in found.numbers.items()}
