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

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from .allocator import keep_freed_memory
from .augment import Means
from .checkpoint import Checkpoints, claim, exist
from .config import TrainConfig
from .critic import Rounds
from .data import few, hold_out
from .distributed import (
    apply_gradients,
    from_rank_0,
    mean_over_ranks,
    owned,
    processes,
    rank,
    reducing,
    trainable,
    world_size,
)
from .environment import record
from .gan import GAN
from .growth import BatchesByStage
from .interrupt import SAVE, STOP, Interrupted, handled, interrupts
from .lock import locked
from .penalties import Penalty
from .pieces import count_pieces, mean_of, repeated
from .randomness import Purpose, seed_torch
from .singular import spectral_stats
from .sizes import fit_or_say_so, require_fitting
from .snapshot import Evaluations, Snapshots
from .standing import averaged_generator
from .start import load_networks
from .stats import Stats, require_finite
from .terminal import surviving
from .tuning import tune
from .types import Batch, Critic

__all__ = ["GAN", "d_step", "g_step", "train"]


def d_step(
    gan: GAN, batch: Batch, nimg: int, held_out: Batch | None = None, labelled: Batch | None = None
) -> dict[str, Tensor]:
    """Update D once on `batch`. Returns detached scalars, on the device.

    held_out: real images that D is not trained on; their mean logit is reported, for an augmentation that reads it.
    labelled: images whose classes D learns, for a head that may not read those of `batch`.
    """
    cfg = gan.cfg
    update = gan.stages.updates(nimg)  # of D so far
    alone = not due(update, *cfg.penalties, *cfg.d_regularizers, *cfg.joint_penalties)  # is the loss
    stats: list[dict[str, Tensor]] = []
    with trainable(gan.d_optim), gan.computing():
        for piece in gan.pieces(batch, Purpose.Z_FOR_D, nimg, held_out, labelled):  # one, unless cfg.micro_batch
            unseen = piece.held_out
            with torch.no_grad(), gan.mixed():
                on_held_out = {} if unseen is None else {"D/held_out": gan.critic(unseen.x, unseen.y).mean()}
            with gan.mixed():
                fake = gan.images_for_d(piece)
                loss, of_loss = gan.d_loss(piece.real, fake, piece.labelled)
            with reducing(gan.d_optim, piece.last and alone) as reduction:
                (piece.share * loss).backward()
            penalties = [(p, partial(mean_penalty, p, gan.critic, piece.real, fake)) for p in cfg.penalties]
            added = add_gradients(penalties, gan.d_optim, update, nimg, piece.share)
            stats.append(of_loss | on_held_out | {f"D/{name}": value for name, value in added.items()})
        terms: list[tuple[Term, Callable[[], Tensor]]] = [
            *zip(cfg.d_regularizers, (partial(r, gan.D) for r in gan.d_regularizations), strict=True),
            *((j, partial(gan.joint_value, j, batch, labelled, Purpose.Z_FOR_D, nimg)) for j in cfg.joint_penalties),
        ]
        added = add_gradients(terms, gan.d_optim, update, nimg)
        apply_gradients(gan.d_optim, reduction)
    for constrain in gan.constraints:
        constrain(gan.D)
    for regularization in gan.d_regularizations:
        regularization.update(gan.D)
    return mean_of(stats) | {f"D/{name}": value for name, value in added.items()}


def g_step(gan: GAN, batch: Batch, nimg: int, labelled: Batch | None = None) -> dict[str, Tensor]:
    """Update G once. `batch`, D's last one, supplies labels and, where they are compared with, the real images."""
    cfg = gan.cfg
    update = gan.stages.updates(nimg) // (cfg.d_steps if isinstance(cfg.d_steps, int) else 1)
    alone = not due(update, *cfg.g_regularizers, *cfg.joint_penalties)
    batch = repeated(batch, cfg.g_batches)
    stats: list[dict[str, Tensor]] = []
    with trainable(gan.g_optim), gan.computing():
        for piece in gan.pieces(batch, Purpose.Z_FOR_G, nimg):
            with gan.mixed():
                loss, of_loss = gan.g_loss(piece.real, gan.images_for_g(piece), nimg)
            with reducing(gan.g_optim, piece.last and alone) as reduction:
                (piece.share * loss).backward()
            stats.append(of_loss)
        terms: list[tuple[Term, Callable[[], Tensor]]] = [
            *zip(cfg.g_regularizers, (partial(r, gan.G) for r in gan.g_regularizations), strict=True),
            *((j, partial(gan.joint_value, j, batch, labelled, Purpose.Z_FOR_G, nimg)) for j in cfg.joint_penalties),
        ]
        added = add_gradients(terms, gan.g_optim, update, nimg)
        apply_gradients(gan.g_optim, reduction)
    for regularization in gan.g_regularizations:
        regularization.update(gan.G)
    return mean_of(stats) | {f"G/{name}": value for name, value in added.items()}


def iteration(gan: GAN, batch: Batch, nimg: int) -> None:
    """Update both players once, on the same batch."""
    labelled = batch if gan.cfg.head.classifies == "labelled" else None
    d_step(gan, batch, nimg, labelled=labelled)
    g_step(gan, batch, nimg, labelled=labelled)


class Term(Protocol):
    """What is added to a loss: a penalty or a regulariser."""

    @property
    def every(self) -> int: ...

    def weight(self, nimg: int) -> float: ...


def due(update: int, *terms: Term) -> bool:
    """Whether one of the terms is applied at this update."""
    return any(update % term.every == 0 for term in terms)


def add_gradients(
    terms: Iterable[tuple[Term, Callable[[], Tensor]]],
    optimizer: torch.optim.Optimizer,
    update: int,
    nimg: int,
    share: float = 1.0,
) -> dict[str, Tensor]:
    """Add the gradients of the terms that are due at this update. Returns their unweighted values by name.

    Each has a backward of its own, so its graph is freed before the next one. share: of the piece that they are of.
    """
    values: dict[str, Tensor] = {}
    for term, compute in terms:
        if due(update, term):
            value = compute()
            if value.requires_grad:  # it is a constant for a regulariser of layers that are all frozen
                torch.autograd.backward(share * term.every * term.weight(nimg) * value, inputs=owned(optimizer))
            name = type(term).__name__
            values[name] = values[name] + value.detach() if name in values else value.detach()
    return values


def mean_penalty(penalty: Penalty, critic: Critic, real: Batch, fake: Batch) -> Tensor:
    value = penalty(critic, real, fake).mean()
    if not value.requires_grad:
        raise ValueError(
            f"{penalty!r} does not depend on D's weights, so it would train nothing: something cut it from the graph "
            "(detach(), torch.no_grad(), or torch.autograd.grad without create_graph=True)"
        )
    return value


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
        with_labels = None
        if cfg.head.classifies == "labelled":
            with_labels = few(dataset, cfg.head.labels_read(len(dataset), dataset.spec.num_classes))
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


def means(d_stats: dict[str, Tensor]) -> Means | None:
    """D's mean logits over all processes, for an augmentation that reads images held out; None if there are none."""
    if "D/held_out" not in d_stats:
        return None
    return Means(*(mean_over_ranks(d_stats[f"D/{name}"]) for name in Means._fields))


def passed(nimg: int, every_kimg: float, increment: int) -> bool:
    """Whether `nimg` went past a multiple of `every_kimg` thousand images in its last `increment`."""
    every = every_kimg * 1000
    return nimg // every != (nimg - increment) // every
