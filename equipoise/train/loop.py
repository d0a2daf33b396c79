"""The training loop. Read this file first; everything else is a component it calls.

One iteration, in order:

    d_steps x   D: loss, penalties and regularisers that are due, all-reduce, step, constraints
    1 x         G: loss, regularisers that are due, all-reduce, step
    then        EMA, augmentation strength, statistics, checkpoint

All schedules count real images shown to D (`nimg`), never steps, so they do not depend on batch size or number of
processes. All randomness is a function of (seed, rank, nimg), so on the CPU, with as many threads, a resumed run
repeats the uninterrupted one bit for bit, and no generator state is saved.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

from torch import nn

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.distributed import from_rank_0, mean_over_ranks, processes, rank, world_size
from equipoise.compute.interrupt import SAVE, STOP, Interrupted, handled, interrupts
from equipoise.compute.pieces import count_pieces
from equipoise.compute.terminal import surviving
from equipoise.config import TrainConfig
from equipoise.core.randomness import Purpose, seed_torch
from equipoise.data import few, hold_out
from equipoise.generate import averaged_generator
from equipoise.rules import Rounds
from equipoise.runs import Checkpoints, Stats, claim, exist, locked, record, require_finite
from equipoise.weights import spectral_stats

from .batches import BatchesByStage
from .gan import GAN
from .memory import fit_or_say_so, require_fitting
from .snapshot import Evaluations, Snapshots
from .start import load_networks
from .steps import d_step, g_step, iteration, means
from .tuning import tune

__all__ = ["GAN", "train"]


def train(cfg: TrainConfig, run_dir: str | Path) -> nn.Module:
    """Train as `cfg` says, resuming from `run_dir` if it holds a checkpoint. Returns the averaged generator.

    Raises:
        ValueError: if the data, the networks or the directory do not fit the config.
        RunError: if the run diverges, cannot write, runs out of memory, is trained by another process, or
            (`Interrupted`) is asked to stop by SIGINT, SIGTERM, SIGHUP or SIGXCPU. SIGUSR1 asks for a checkpoint alone.
    """
    if run_dir == "":
        raise ValueError("run_dir is empty: give the directory of the run, or '.' for the working directory")
    run_dir = Path(run_dir)
    keep_freed_memory()
    with surviving(), interrupts(SAVE) as interrupt, processes() as device, fit_or_say_so(), locked(run_dir):
        dataset, held_out = hold_out(cfg.data.build(), cfg.augment.held_out)
        require_fitting(cfg, dataset.spec, len(dataset), device)
        gan = GAN.build(cfg, dataset.spec, device)
        for size in gan.stages.batch_sizes:
            if size % world_size():
                raise ValueError(f"batch_size={size} must be a multiple of the {world_size()} processes")
            for images in (size, size * cfg.g_batches):
                count_pieces(images // world_size(), cfg.micro_batch)
        labels = cfg.head.conditioning.labels_read(len(dataset), dataset.spec.num_classes)
        with_labels = None if labels is None else few(dataset, labels)
        ema = cfg.ema.build(gan.G) if cfg.transfer is None else replace(cfg.ema, rampup=None).build(gan.G)
        transferred = cfg.transfer is not None and not exist(run_dir)
        if cfg.transfer is not None and transferred:
            load_networks(cfg.transfer, {"G": gan.G, "D": gan.D, "ema": ema.model})
            gan.remember()

        from_rank_0(lambda: claim(run_dir, cfg))  # from here on the directory is this run's
        tune(gan, run_dir, iteration)
        checkpoints = Checkpoints(
            run_dir,
            nets={
                "G": gan.G,
                "D": gan.D,
                "ema": ema.model,
                "augment": gan.augment,
                "g_regularizations": nn.ModuleList(gan.g_regularizations),
                "d_regularizations": nn.ModuleList(gan.d_regularizations),
            },
            optimizers={"G": gan.g_optim, "D": gan.d_optim},
            spec=dataset.spec,
        )
        if transferred:
            checkpoints.save(0)  # from here on the run needs the other one no more
        nimg = checkpoints.load_latest()
        total = round(cfg.total_kimg * 1000)
        snapshots = Snapshots(run_dir, cfg, dataset.spec)
        if snapshots.missing(nimg):  # a run that was killed before it could write them
            snapshots.save(ema.model, nimg, checkpoints.last)
        if nimg >= total:
            return averaged_generator(ema.model, cfg, dataset.spec)
        endless = partial(
            BatchesByStage,
            stages=gan.stages,
            seed=cfg.seed,
            start=nimg,
            rank=rank(),
            world=world_size(),
            device=device,
            noise=cfg.dequantise,
        )
        batches = endless(dataset)
        nothing = nullcontext(repeat(None))
        of_held_out = nothing if held_out is None else endless(held_out, purpose=Purpose.NOISE_ON_HELD_OUT)
        of_labelled = nothing if with_labels is None else endless(with_labels, purpose=Purpose.NOISE_ON_LABELLED)
        from_rank_0(lambda: record(run_dir, resumed=nimg > 0))
        evaluations = Evaluations(run_dir, cfg, dataset, gan.D)
        stats = Stats(run_dir, cfg.total_kimg, nimg)
        with (
            batches,
            of_held_out as held_out_batches,
            of_labelled as labelled_batches,
            stats,
            handled(interrupt, *STOP),
        ):
            while nimg < total:
                seed_torch(cfg.seed, Purpose.DRAWS, rank(), nimg)
                cfg.g_optim.apply(gan.g_optim, nimg)  # lr and betas for this point of training
                start, rounds = nimg, Rounds(cfg.d_steps)
                for _ in rounds:
                    cfg.d_optim.apply(gan.d_optim, nimg)
                    gan.at(nimg)
                    size, batch = gan.stages.batch_size(nimg), next(batches)  # this process's share, on its device
                    labelled = next(labelled_batches)
                    d_stats = d_step(gan, batch, nimg, next(held_out_batches), labelled)
                    sign_real = mean_over_ranks(d_stats["D/sign_real"])
                    d_stats |= gan.augment.adapt(sign_real, size, means(d_stats))
                    nimg += size
                    rounds.note(d_stats, nimg)
                g_stats = g_step(gan, batch, start, labelled)

                increment = nimg - start
                ema.update(gan.G, nimg, increment)
                for d_stats, after in rounds.reported():
                    stats.add(d_stats, after)
                stats.add(g_stats, nimg)
                asked = interrupt.requested()
                evaluate = nimg >= total or passed(nimg, evaluations.every_kimg, increment)
                save = bool(asked) or evaluate or passed(nimg, cfg.snapshot_kimg, increment)
                if save:
                    stats.add(spectral_stats(gan.D), nimg)
                if evaluate:
                    stats.add(evaluations.of(ema.model, nimg, checkpoints.last), nimg)
                if save or passed(nimg, cfg.log_kimg, increment):
                    stats.write(nimg, checkpoints.last)  # the only place where the host waits for the device
                if save:
                    require_finite({"G": gan.G, "D": gan.D}, nimg, checkpoints.last)
                    checkpoints.save(nimg)  # first: whoever asked to stop may not wait for the snapshot
                    snapshots.save(ema.model, nimg, checkpoints.last, stats)
                if asked in STOP and nimg < total:
                    raise Interrupted(
                        f"stopped after {nimg / 1000:g} of {cfg.total_kimg:g} kimg, saved as {checkpoints.last}. "
                        "The same command goes on from there.",
                        asked,
                    )
        return averaged_generator(ema.model, cfg, dataset.spec)


def passed(nimg: int, every_kimg: float, increment: int) -> bool:
    """Whether `nimg` went past a multiple of `every_kimg` thousand images in its last `increment`."""
    every = every_kimg * 1000
    return nimg // every != (nimg - increment) // every
