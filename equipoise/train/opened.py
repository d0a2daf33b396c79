"""A run, opened: its data, players, checkpoints and events, wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.distributed import from_rank_0, processes, world_size
from equipoise.compute.interrupt import SAVE, STOP, Interrupt, handled, interrupts
from equipoise.compute.pieces import count_pieces
from equipoise.compute.terminal import surviving
from equipoise.config import TrainConfig
from equipoise.core.types import ImageSpec
from equipoise.data import hold_out
from equipoise.rules import EMA
from equipoise.runs import Checkpoints, Stats, claim, exist, locked, record

from .batches import Drawn, Streams
from .events import Event, checkpoint, log, spectra
from .gan import GAN
from .memory import fit_or_say_so, require_fitting
from .snapshot import Evaluations, Snapshots
from .start import load_networks
from .steps import iteration
from .tuning import tune

__all__ = ["Run", "opened"]


@dataclass
class Run:
    """A run that is being trained.

    nimg: where it begins.  total: where it ends.
    data: of each update of D.  stats, events: as `Moment` has them. A finished run has none of these three.
    """

    cfg: TrainConfig
    spec: ImageSpec
    gan: GAN
    ema: EMA
    checkpoints: Checkpoints
    interrupt: Interrupt
    nimg: int
    total: int
    data: Iterator[Drawn] = field(init=False)
    stats: Stats = field(init=False)
    events: Sequence[Event] = field(init=False)


@contextmanager
def opened(cfg: TrainConfig, run_dir: str | Path, events: Sequence[Event] = ()) -> Iterator[Run]:
    """The run of `cfg` in `run_dir`, where its newest checkpoint left it.

    events: of the caller. Their statistics are written with those of the same iteration.

    Raises:
        ValueError, RunError: as `train`.
    """
    if run_dir == "":
        raise ValueError("run_dir is empty: give the directory of the run, or '.' for the working directory")
    folder = Path(run_dir)
    keep_freed_memory()
    with surviving(), interrupts(SAVE) as interrupt, processes() as device, fit_or_say_so(), locked(folder):
        dataset, held_out = hold_out(cfg.data.build(), cfg.augment.held_out)
        require_fitting(cfg, dataset.spec, len(dataset), device)
        gan = GAN.build(cfg, dataset.spec, device)
        require_shares(gan)
        streams = Streams(gan.cfg, gan.stages, dataset, held_out)
        ema, transferred = started(gan, folder)
        from_rank_0(lambda: claim(folder, cfg))  # from here on the directory is this run's
        tune(gan, folder, iteration)
        checkpoints = saved(gan, ema, folder)
        if transferred:
            checkpoints.save(0)  # from here on the run needs the other one no more
        nimg = checkpoints.load_latest()
        snapshots = Snapshots(folder, cfg, dataset.spec)
        if snapshots.missing(nimg):  # a run that was killed before it could write them
            snapshots.save(ema.model, nimg, checkpoints.last)
        total = round(cfg.total_kimg * 1000)
        run = Run(cfg, dataset.spec, gan, ema, checkpoints, interrupt, nimg, total)
        if nimg >= total:
            yield run
            return
        with streams.opened(nimg, device) as run.data:
            from_rank_0(lambda: record(folder, resumed=nimg > 0))
            evaluations = Evaluations(folder, cfg, dataset, gan.D)
            run.stats = Stats(folder, cfg.total_kimg, nimg)
            run.events = (spectra, evaluations, *events, log, checkpoint, snapshots)
            with run.stats, handled(interrupt, *STOP):
                yield run


def require_shares(gan: GAN) -> None:
    """Raises ValueError if a batch of the run cannot be shared among the processes, or cut into pieces."""
    cfg = gan.cfg
    for size in gan.stages.batch_sizes:
        if size % world_size():
            raise ValueError(f"batch_size={size} must be a multiple of the {world_size()} processes")
        for images in (size, size * cfg.g_batches):
            count_pieces(images // world_size(), cfg.micro_batch)


def started(gan: GAN, folder: Path) -> tuple[EMA, bool]:
    """The average of G, and whether the networks were taken from another run just now."""
    start = gan.cfg.start
    if start is None:
        return gan.cfg.ema.build(gan.G), False
    ema = replace(gan.cfg.ema, rampup=None).build(gan.G)
    if exist(folder):
        return ema, False
    load_networks(start, {"G": gan.G, "D": gan.D, "ema": ema.model})
    gan.remember()
    return ema, True


def saved(gan: GAN, ema: EMA, folder: Path) -> Checkpoints:
    """The checkpoints of a run: all that a resumed run needs."""
    nets: dict[str, nn.Module] = {"G": gan.G, "D": gan.D, "ema": ema.model, "augment": gan.augment}
    nets |= {"D_terms": nn.ModuleList(gan.memories("D")), "G_terms": nn.ModuleList(gan.memories("G"))}
    if gan.showing.pool is not None:
        nets["pool"] = gan.showing.pool
    optimizers: dict[str, torch.optim.Optimizer] = {"G": gan.g_optim, "D": gan.d_optim}
    return Checkpoints(folder, nets=nets, optimizers=optimizers, keep=gan.cfg.report.keep)
