"""The context of an update: each attribute is computed once, when a term first reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from torch import Tensor, nn

from equipoise.compute.distributed import owned, trainable
from equipoise.compute.pieces import Piece
from equipoise.core.types import Batch, Critic, Generated, Told
from equipoise.losses import BothLosses, Output, Term
from equipoise.rules import Shown

from .gan import GAN
from .players import Player

__all__ = ["StepContext", "fused", "weighted_sum"]


class StepContext:
    """A piece of the batch, as the terms of the player `me` see it at `nimg`: `losses.Seen`.

    shown: the images; None: the player's game shows them when they are first read.
    of_terms: the real images of the player's step, for the step that its terms then take on their own, or None.
    """

    def __init__(
        self, gan: GAN, me: Player, piece: Piece, nimg: int, shown: Shown | None = None, of_terms: Batch | None = None
    ):
        self.gan, self.me, self.piece, self.nimg, self.of_terms = gan, me, piece, nimg, of_terms
        self.verdicts: list[Tensor] = []
        if shown is not None:
            self.shown = shown

    @cached_property
    def shown(self) -> Shown:
        return self.me.show(self.piece) if self.of_terms is None else self.me.show_terms(self.piece)

    @property
    def real(self) -> Batch:
        return self.shown.real if self.of_terms is None else self.of_terms

    @property
    def fake(self) -> Batch:
        return self.shown.fake

    @property
    def made(self) -> Generated:
        return self.shown.made

    @property
    def labelled(self) -> Batch | None:
        return self.piece.labelled

    @property
    def z(self) -> Tensor:
        return self.piece.z

    @property
    def y(self) -> Told:
        return self.piece.real.y

    @cached_property
    def on_real(self) -> Output:
        return self.gan.outputs(self.real.x, self.real.y)

    @cached_property
    def on_fake(self) -> Output:
        return self.gan.outputs(self.fake.x, self.fake.y)

    @cached_property
    def on_labelled(self) -> Output:
        assert self.labelled is not None
        return self.gan.outputs(self.labelled.x, self.labelled.y)

    @property
    def critic(self) -> Critic:
        return self.gan.critic

    def critic_of_real(self, x: Tensor, y: Told) -> Tensor:
        logits = self.gan.critic(x, y)
        self.verdicts.append(logits.detach())
        return logits

    @property
    def net(self) -> nn.Module:
        return self.me.net

    def again(self, y: Told) -> Generated:
        return self.gan.made(self.z, y)

    @contextmanager
    def both_losses(self) -> Iterator[BothLosses]:
        """Both losses on images of this piece. The graphs reach both networks."""
        gan = self.gan
        with trainable(gan.d_optim, gan.g_optim):
            shown = gan.showing.to_both(self.piece)
            d_loss, g_loss = (
                weighted_sum(fused(player.terms), StepContext(gan, player, self.piece, self.nimg, shown))[0]
                for player in gan.players
            )
            yield BothLosses(d_loss, g_loss, owned(gan.d_optim), owned(gan.g_optim))


def fused(terms: Iterable[Term]) -> list[Term]:
    """The terms whose gradient is computed in the graph of the loss."""
    return [term for term in terms if term.place == "fused"]


def weighted_sum(terms: Iterable[Term], seen: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ weight · value, (), and the detached values by name."""
    total, values = None, {}
    for term in terms:
        value = term.of(seen)
        weighted = term.weight(seen.nimg) * value
        total = weighted if total is None else total + weighted
        if term.name is not None:
            values[term.name] = value.detach()
    assert total is not None
    return total, values
