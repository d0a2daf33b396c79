"""Open a run: load its data, players, checkpoints and events, new or resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from equipoise.compute.distributed import from_rank_0
from equipoise.compute.interrupt import STOP, handled
from equipoise.config import TrainConfig
from equipoise.data import hold_out
from equipoise.runs import Stats, claim, keep_notice, record

from .batches import Streams
from .evaluations import Evaluations
from .events import Event
from .gan import GAN
from .hosting import hosted
from .memory import require_fitting
from .opening import open_with
from .run import Run
from .snapshot import Snapshots
from .start import require_shares, saved, started
from .steps import iteration
from .tuning import tune
from .watching import Watching

__all__ = ["opened"]


@contextmanager
def opened(cfg: TrainConfig, run_dir: str | Path, events: Sequence[Event] = ()) -> Iterator[Run]:
    """The run of `cfg` in `run_dir`, resumed from its newest checkpoint.

    events: the caller's. Their statistics are written with the statistics of the same iteration.

    Raises:
        ValueError, RunError: as `train`.
    """
    if run_dir == "":
        raise ValueError("run_dir is empty: give the directory of the run, or '.' for the working directory")
    folder = Path(run_dir)
    with hosted(folder, cfg.compute) as (device, interrupt):
        dataset, held_out = hold_out(cfg.data.build(), cfg.augment.held_out)
        require_fitting(cfg, dataset.spec, len(dataset), device)
        gan = GAN.build(cfg, dataset.spec, device)
        require_shares(gan)
        streams = Streams(gan.cfg, gan.stages, dataset, held_out)
        ema, notice = started(gan, folder)
        from_rank_0(lambda: claim(folder, cfg))  # from here on the directory is this run's
        tune(gan, folder, iteration)
        checkpoints = saved(gan, ema, folder)
        if notice is not None:
            from_rank_0(lambda: keep_notice(notice, folder))
            checkpoints.save(0)  # from here on the run does not need the other run
        nimg = checkpoints.load_latest()
        snapshots = Snapshots(folder, cfg, dataset.spec)
        if snapshots.missing(nimg):  # the run was killed before it wrote them
            snapshots.save(ema.model, nimg, checkpoints.last)
        total = round(cfg.total_kimg * 1000)
        run = Run(cfg, dataset.spec, gan, ema, checkpoints, interrupt, nimg, total)
        if nimg >= total:
            yield run
            return
        open_with(gan, dataset, held_out, nimg, folder)
        snapshots.begin(ema.model, dataset, nimg)
        with streams.opened(nimg, device) as run.data:
            from_rank_0(lambda: record(folder, resumed=nimg > 0, device=device))
            evaluations = Evaluations(folder, cfg, dataset, gan.D, gan.G)
            run.stats = Stats(folder, cfg.total_kimg, nimg)
            run.report_by(evaluations, events, snapshots, Watching(folder, gan, dataset))
            with run.stats, handled(interrupt, *STOP):
                yield run
