"""The training loop. Read this file first; everything else is a component it calls.

One iteration, in order:

    d_steps x   D: adversarial loss, penalties that are due, all-reduce, step, constraints
    1 x         G: adversarial loss, all-reduce, step
    then        EMA, augmentation strength, statistics, checkpoint

All schedules count real images shown to D (`nimg`), never steps, so they do not depend on batch size or number of
processes. All randomness is a function of (seed, rank, nimg), so on the CPU a resumed run repeats the uninterrupted
one bit for bit, and no generator state is saved.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from .augment import Augmentation, Means
from .checkpoint import Checkpoints, claim
from .config import TrainConfig
from .data import InfiniteBatches, hold_out
from .distributed import (
    apply_gradients,
    from_rank_0,
    mean_over_ranks,
    processes,
    rank,
    trainable,
    world_size,
)
from .interrupt import Interrupted, interrupts
from .objective import discriminator_loss, generator_loss
from .randomness import Purpose, seed_torch, stream
from .snapshot import Snapshots
from .standing import averaged_generator
from .stats import Stats, require_finite
from .types import Batch, ImageSpec, Logits

__all__ = ["GAN", "d_step", "g_step", "train"]


@dataclass
class GAN:
    """The two players and what a step needs to train them."""

    cfg: TrainConfig
    G: nn.Module
    D: nn.Module
    augment: Augmentation
    g_optim: torch.optim.Optimizer
    d_optim: torch.optim.Optimizer

    @classmethod
    def build(cls, cfg: TrainConfig, spec: ImageSpec, device: torch.device | str = "cpu") -> Self:
        """Networks initialised from the seed, the same on every process, then normalised; nothing requires a gradient.

        Raises:
            ValueError: if the networks or the head are not defined for the data.
        """
        seed_torch(cfg.seed, Purpose.WEIGHTS)
        G = cfg.generator.build(spec)
        D = cfg.discriminator.build(spec, cfg.head.factory(spec.num_classes))
        cfg.g_normalizer(G)
        cfg.d_normalizer(D)
        augment = cfg.augment.build()
        for net in (G, D, augment):
            net.to(device)
        gan = cls(cfg, G, D, augment, cfg.g_optim.build(G), cfg.d_optim.build(D))
        for net in (G, D):
            net.requires_grad_(False)  # a step lets the weights that it trains require one
        return gan

    def logits(self, x: Tensor, y: Tensor | None) -> Logits:
        """D never sees an image that was not augmented, real or generated."""
        logits: Logits = self.D(self.augment(x), y)
        return logits

    def critic(self, x: Tensor, y: Tensor | None) -> Tensor:
        """D as penalties see it: (N, K)."""
        return self.logits(x, y).fun

    def generate(self, like: Batch, purpose: Purpose, nimg: int) -> Batch:
        """As many images as `like` holds, with its labels; z is this process's share of the global batch's."""
        share = len(like.x)
        z = torch.randn(share * world_size(), self.cfg.generator.z_dim, generator=stream(self.cfg.seed, purpose, nimg))
        z = z[rank() * share : (rank() + 1) * share].to(like.x.device)
        return Batch(self.G(z, like.y), like.y)


def d_step(gan: GAN, batch: Batch, nimg: int, held_out: Batch | None = None) -> dict[str, Tensor]:
    """Update D once on `batch`. Returns detached scalars, on the device.

    held_out: real images that D is not trained on; their mean logit is reported, for an augmentation that reads it.
    """
    cfg = gan.cfg
    update = nimg // cfg.batch_size  # D updates so far
    stats: dict[str, Tensor] = {}
    with trainable(gan.d_optim):
        with torch.no_grad():
            fake = gan.generate(batch, Purpose.Z_FOR_D, nimg)
            if held_out is not None:
                stats["D/held_out"] = gan.critic(held_out.x, held_out.y).mean()
        on_real, on_fake = gan.logits(batch.x, batch.y), gan.logits(fake.x, fake.y)
        loss = discriminator_loss(cfg.loss, on_real, on_fake)
        loss.backward()
        for penalty in cfg.penalties:
            if update % penalty.every == 0:
                value = penalty(gan.critic, batch, fake).mean()
                (penalty.every * penalty.weight(nimg) * value).backward()
                name = f"D/{type(penalty).__name__}"
                stats[name] = stats.get(name, 0) + value.detach()
        apply_gradients(gan.d_optim)
    for constrain in cfg.constraints:
        constrain(gan.D)
    real, fooled = on_real.fun.detach(), on_fake.fun.detach()
    stats |= {"D/loss": loss.detach(), "D/real": real.mean(), "D/fake": fooled.mean()}
    return stats | {"D/sign_real": real.sign().mean()}


def g_step(gan: GAN, batch: Batch, nimg: int) -> dict[str, Tensor]:
    """Update G once. `batch` supplies labels and, for paired losses, the real images."""
    cfg = gan.cfg
    with trainable(gan.g_optim):
        fake = gan.generate(batch, Purpose.Z_FOR_G, nimg)
        on_fake = gan.logits(fake.x, fake.y)
        on_real = gan.logits(batch.x, batch.y) if cfg.loss.paired else None
        loss = generator_loss(cfg.loss, on_fake, on_real)
        loss.backward()
        apply_gradients(gan.g_optim)
    return {"G/loss": loss.detach()}


def train(cfg: TrainConfig, run_dir: str | Path) -> nn.Module:
    """Train as `cfg` says, resuming from `run_dir` if it holds a checkpoint. Returns the averaged generator.

    Raises:
        ValueError: if the data, the networks or the directory do not fit the config.
        RunError: if the run diverges, cannot write, or (`Interrupted`) is asked to stop by SIGINT or SIGTERM.
    """
    run_dir = Path(run_dir)
    with processes() as device:
        if cfg.batch_size % world_size():
            raise ValueError(f"batch_size={cfg.batch_size} must be a multiple of the {world_size()} processes")
        dataset, unseen = hold_out(cfg.data.build(), cfg.augment.held_out)
        gan = GAN.build(cfg, dataset.spec, device)
        ema = cfg.ema.build(gan.G)

        from_rank_0(lambda: claim(run_dir, cfg))
        checkpoints = Checkpoints(
            run_dir,
            nets={"G": gan.G, "D": gan.D, "ema": ema.model, "augment": gan.augment},
            optimizers={"G": gan.g_optim, "D": gan.d_optim},
        )
        nimg = checkpoints.load_latest()
        total, increment = round(cfg.total_kimg * 1000), cfg.d_steps * cfg.batch_size
        if nimg >= total:
            return averaged_generator(ema.model, cfg, dataset.spec)
        endless = partial(InfiniteBatches, seed=cfg.seed, start=nimg, rank=rank(), world=world_size(), device=device)
        batches = endless(dataset, cfg.batch_size)
        held_out = nullcontext(repeat(None)) if unseen is None else endless(unseen, cfg.batch_size)
        snapshots = Snapshots(run_dir, cfg, dataset.spec)
        with batches, held_out as others, Stats(run_dir, cfg.total_kimg, nimg) as stats, interrupts() as interrupt:
            while nimg < total:
                seed_torch(cfg.seed, Purpose.DRAWS, rank(), nimg)
                cfg.g_optim.apply(gan.g_optim, nimg)  # lr and betas for this point of training
                cfg.d_optim.apply(gan.d_optim, nimg)
                gan.augment.at(nimg)

                for i in range(cfg.d_steps):
                    batch = next(batches)  # this process's share of the next `batch_size` images, on its device
                    d_stats = d_step(gan, batch, nimg + i * cfg.batch_size, next(others))
                    sign_real = mean_over_ranks(d_stats["D/sign_real"])
                    d_stats |= gan.augment.adapt(sign_real, cfg.batch_size, means(d_stats))
                    stats.add(d_stats, nimg + (i + 1) * cfg.batch_size)
                g_stats = g_step(gan, batch, nimg)

                nimg += increment
                ema.update(gan.G, nimg, increment)
                stats.add(g_stats, nimg)
                stop = interrupt.requested()
                save = stop or nimg >= total or passed(nimg, cfg.snapshot_kimg, increment)
                if save or passed(nimg, cfg.log_kimg, increment):
                    stats.write(nimg, checkpoints.last)  # the only place where the host waits for the device
                if save:
                    require_finite({"G": gan.G, "D": gan.D}, nimg, checkpoints.last)
                    snapshots.save(ema.model, nimg, stats, checkpoints.last)
                    checkpoints.save(nimg)  # last: a run killed before this line does the rest again
                if stop and nimg < total:
                    raise Interrupted(
                        f"stopped after {nimg / 1000:g} of {cfg.total_kimg:g} kimg, saved as {checkpoints.last}. "
                        "The same command goes on from there.",
                        stop,
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
