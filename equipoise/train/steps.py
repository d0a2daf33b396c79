"""One update of each player."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from equipoise.augment import Means
from equipoise.compute.distributed import apply_gradients, mean_over_ranks, owned, reducing, trainable
from equipoise.compute.pieces import mean_of, repeated
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch, Critic
from equipoise.losses import Penalty
from equipoise.losses.base import Term

from .gan import GAN

__all__ = ["d_step", "g_step"]


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


def means(d_stats: dict[str, Tensor]) -> Means | None:
    """D's mean logits over all processes, for an augmentation that reads images held out; None if there are none."""
    if "D/held_out" not in d_stats:
        return None
    return Means(*(mean_over_ranks(d_stats[f"D/{name}"]) for name in Means._fields))
