"""One update of a player: the gradients of its terms, averaged over processes, and a step of its optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.augment import Means
from equipoise.compute.distributed import apply_gradients, mean_over_ranks, owned, reducing, trainable
from equipoise.compute.pieces import Piece, mean_of, repeated
from equipoise.core.types import Batch, Generated
from equipoise.losses import Term
from equipoise.rules import Shown

from .context import StepContext, fused, weighted_sum
from .gan import GAN
from .players import Player

__all__ = ["d_step", "g_step", "loss_on", "step"]


def step(
    gan: GAN, me: Player, batch: Batch, nimg: int, held_out: Batch | None = None, labelled: Batch | None = None
) -> dict[str, Tensor]:
    """Update one player once. Returns detached scalars, on the device.

    held_out: real images that D is not trained on. Their mean logit is reported, for an augmentation that reads it.
    labelled: images whose classes D learns, for a head that may not read the labels of `batch`.
    """
    update = me.updates(nimg)  # so far
    due = [term for term in me.terms if update % term.every == 0 and not term.own_step]
    then_due = [term for term in me.terms if update % term.every == 0 and term.own_step]
    apart, whole = ([term for term in due if term.place == place] for place in ("apart", "whole"))
    batch, stats, reals = repeated(batch, me.times), [], []
    known = None if labelled is None else repeated(labelled, me.times)
    with trainable(me.optim), gan.compute.step():
        for piece in gan.pieces(batch, me.purpose, nimg, held_out, known):  # one, unless cfg.compute.micro_batch
            seen = StepContext(gan, me, piece, nimg)  # nothing is computed yet
            with torch.no_grad(), gan.compute.loss():
                watched = me.watch(piece.held_out)
            with gan.compute.loss():
                loss, values = weighted_sum(fused(due), seen)
            with reducing(me.optim, piece.last and not (apart or whole)) as reduction:
                (piece.share * loss).backward()
            read = me.read(seen) | {"loss": loss.detach()} | values | watched
            stats.append(read | own_backwards(apart, seen, piece.share))
            if then_due:
                reals.append(seen.real)
        once = Piece(batch, gan.latents(batch, me.purpose, nimg), labelled=labelled) if whole else piece
        added = own_backwards(whole, StepContext(gan, me, once, nimg))
        apply_gradients(me.optim, reduction)
    for then in me.after:
        then(me.net)
    if then_due:
        added |= step_of_terms(gan, me, then_due, batch, nimg, reals, known)
    return {f"{me.name}/{name}": value for name, value in (mean_of(stats) | added).items()}


def step_of_terms(
    gan: GAN, me: Player, terms: Sequence[Term], batch: Batch, nimg: int, reals: Sequence[Batch], known: Batch | None
) -> dict[str, Tensor]:
    """A further step of the player on the gradients of `terms` alone, with z of its own.

    reals: the real images of the player's step, a batch for each piece.
    """
    apart, whole = ([term for term in terms if term.place == place] for place in ("apart", "whole"))
    stats = []
    with trainable(me.optim), gan.compute.step():
        pieces = gan.pieces(batch, me.purpose_of_terms, nimg, labelled=known)
        for piece, real in zip(pieces, reals, strict=True):
            stats.append(own_backwards(apart, StepContext(gan, me, piece, nimg, of_terms=real), piece.share))
        once = Piece(batch, gan.latents(batch, me.purpose_of_terms, nimg), labelled=known)
        added = own_backwards(whole, StepContext(gan, me, once, nimg, of_terms=batch)) if whole else {}
        apply_gradients(me.optim)
    for then in me.after:
        then(me.net)
    return mean_of(stats) | added


def own_backwards(terms: Sequence[Term], seen: StepContext, share: float = 1.0) -> dict[str, Tensor]:
    """Add the gradients of `terms`, one backward per term, so each graph is freed before the next term.

    share: the piece's share of the batch.  Returns the unweighted values by name, and `Player.reread`.
    """
    values: dict[str, Tensor] = {}
    for term in terms:
        value = term.of(seen)
        if value.requires_grad:  # a constant if all layers of a regulariser are frozen
            weight = share * term.every * term.weight(seen.nimg)
            torch.autograd.backward(weight * value, inputs=owned(seen.me.optim))
        name = term.name or type(term).__name__
        values[name] = values[name] + value.detach() if name in values else value.detach()
    return values | seen.me.reread(seen.verdicts)


def d_step(
    gan: GAN, batch: Batch, nimg: int, held_out: Batch | None = None, labelled: Batch | None = None
) -> dict[str, Tensor]:
    """`step` of D on `batch`."""
    return step(gan, gan.players[0], batch, nimg, held_out, labelled)


def g_step(gan: GAN, batch: Batch, nimg: int, labelled: Batch | None = None) -> dict[str, Tensor]:
    """`step` of G. `batch` is D's last batch. It supplies labels, and real images for losses that compare with them."""
    return step(gan, gan.players[1], batch, nimg, labelled=labelled)


def iteration(gan: GAN, batch: Batch, nimg: int) -> None:
    """Update both players once, on the same batch."""
    labelled = batch if gan.cfg.head.conditioning.classifies == "labelled" else None
    d_step(gan, batch, nimg, labelled=labelled)
    g_step(gan, batch, nimg, labelled=labelled)


def loss_on(gan: GAN, me: Player, real: Batch, fake: Batch, nimg: int = 0, labelled: Batch | None = None) -> Tensor:
    """The loss of a player on these images at `nimg`, (), without terms that have a separate backward."""
    piece = Piece(real, real.x[:0], labelled=labelled)
    return weighted_sum(fused(me.terms), StepContext(gan, me, piece, nimg, Shown(real, fake, Generated(fake.x))))[0]


def means(d_stats: dict[str, Tensor]) -> Means | None:
    """D's mean logits over all processes, for an augmentation that reads more than the batch; None without more."""
    if d_stats.keys().isdisjoint(("D/held_out", "D/sign_again")):
        return None
    return Means(**{n: mean_over_ranks(d_stats[f"D/{n}"]) for n in Means._fields if f"D/{n}" in d_stats})
