"""The training loop. Read this file first; everything else is a component it calls.

One iteration, in order:

    d_steps x   D: loss, penalties and regularisers that are due, all-reduce, step, constraints
    1 x         G: loss, regularisers that are due, all-reduce, step
    then        the average of G, and the events: statistics, evaluation, checkpoint, grid, and the caller's own

All schedules count real images shown to D (`nimg`), never steps. So they do not depend on batch size or number of
processes. All randomness is a function of (seed, rank, nimg), and the state of random generators is never saved. On the
CPU, with the same number of threads, a resumed run repeats the uninterrupted run bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from equipoise.compute.distributed import mean_over_ranks, rank
from equipoise.compute.interrupt import STOP, Interrupted
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.generate import averaged_generator
from equipoise.rules import Rounds

from .events import Event, Moment
from .opened import opened
from .run import Run
from .steps import d_step, g_step, means

__all__ = ["train"]


def train(cfg: TrainConfig, run_dir: str | Path, events: Sequence[Event] = ()) -> nn.Module:
    """Train as `cfg` says, resuming from `run_dir` if it holds a checkpoint. Returns the averaged generator.

    events: called with a `Moment` after each iteration, on every process.

    Raises:
        ValueError: if the data, the networks or the directory do not fit the config.
        RunError: if the run diverges, cannot write, runs out of memory, is trained by another process, or
            (`Interrupted`) is asked to stop by SIGINT, SIGTERM, SIGHUP or SIGXCPU. SIGUSR1 only asks for a checkpoint.
            Also if a symptom of `report.stop_on` begins.
    """
    with opened(cfg, run_dir, events) as run:
        nimg = run.nimg
        while nimg < run.total:
            start, nimg = nimg, iterate(run, nimg)
            now = Moment(
                run.gan,
                run.ema,
                nimg,
                increment=nimg - start,
                last=nimg >= run.total,
                asked=run.interrupt.requested(),
                due=run.clock.due(nimg),
                stats=run.stats,
                checkpoints=run.checkpoints,
                report=cfg.report,
            )
            for event in run.after(now):
                event(now)
            if now.asked in STOP and not now.last:
                raise Interrupted(
                    f"stopped after {nimg / 1000:g} of {cfg.total_kimg:g} kimg, saved as {run.checkpoints.last}. "
                    "The same command resumes from there.",
                    now.asked,
                )
        return averaged_generator(run.ema.model, cfg, run.spec)


def iterate(run: Run, start: int) -> int:
    """Update D `d_steps` times, G once, and the average of G. Returns the number of images that D has then seen."""
    cfg, gan, nimg = run.cfg, run.gan, start
    seed_torch(cfg.seed, Purpose.DRAWS, rank(), nimg)
    cfg.optim("G").apply(gan.g_optim, nimg)  # lr and betas at `nimg`
    rounds = Rounds(cfg.d_steps)
    for _ in rounds:
        cfg.optim("D").apply(gan.d_optim, nimg)
        gan.at(nimg)
        size, drawn = gan.stages.batch_size(nimg), next(run.data)
        d_stats = d_step(gan, drawn.batch, nimg, drawn.held_out, drawn.labelled)
        d_stats |= gan.augment.adapt(mean_over_ranks(d_stats["D/sign_real"]), size, means(d_stats))
        nimg += size
        rounds.note(d_stats, nimg)
    g_stats = g_step(gan, drawn.batch, start, drawn.labelled)
    run.ema.update(gan.G, nimg, nimg - start)
    for stats, after in (*rounds.reported(), (g_stats, nimg)):
        run.stats.add(stats, after)
    return nimg
