"""The context of an update: each thing is computed once, when a term first asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from torch import Tensor, nn

from equipoise.compute.distributed import owned, trainable
from equipoise.compute.pieces import Piece
from equipoise.core.types import Batch, Critic
from equipoise.losses import Output, Term
from equipoise.losses.base import Game

from .gan import GAN
from .players import Player

__all__ = ["StepContext", "weighted_sum"]


class StepContext:
    """A piece of the batch, as the terms of the player `me` see it at `nimg`: `losses.Seen`.

    fake: generated images; None lets the player make them when they are first asked for.
    """

    def __init__(self, gan: GAN, me: Player, piece: Piece, nimg: int, fake: Batch | None = None):
        self.gan, self.me, self.piece, self.nimg = gan, me, piece, nimg
        if fake is not None:
            self.fake = fake

    @property
    def real(self) -> Batch:
        return self.piece.real

    @property
    def labelled(self) -> Batch | None:
        return self.piece.labelled

    @cached_property
    def fake(self) -> Batch:
        return self.me.images(self.piece)

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

    @property
    def net(self) -> nn.Module:
        return self.me.net

    @contextmanager
    def game(self) -> Iterator[Game]:
        """Both losses on images of this piece, whose graphs reach both networks."""
        gan = self.gan
        with trainable(gan.d_optim, gan.g_optim):
            fake = gan.images(self.piece.z, self.real.y)
            d_loss, g_loss = (
                weighted_sum(fused(player.terms), StepContext(gan, player, self.piece, self.nimg, fake))[0]
                for player in gan.players
            )
            yield Game(d_loss, g_loss, owned(gan.d_optim), owned(gan.g_optim))


def fused(terms: Iterable[Term]) -> list[Term]:
    """The terms in the graph of the loss."""
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
