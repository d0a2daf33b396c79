"""Images that the game shows to each player, with or without a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from equipoise.compute.distributed import trainable
from equipoise.compute.pieces import Piece
from equipoise.core.types import Generated
from equipoise.rules.game import Game, Shown

__all__ = ["Showing"]


class Showing:
    """A game bound to one G.

    optimizer: of G. Its weights require a gradient while D's update keeps the graph for G's update.
    pool: of generated images that D is shown again, or None.
    images: function applied to images before a player sees them.
    """

    def __init__(
        self,
        game: Game,
        G: nn.Module,
        optimizer: torch.optim.Optimizer,
        pool: nn.Module | None,
        images: Callable[[Tensor], Tensor],
    ):
        self.game, self.G, self.optimizer, self.pool, self.images = game, G, optimizer, pool, images
        self.kept: Shown | None = None
        """Images of D's last update, with their graph, until G's update takes them."""

    def to_both(self, piece: Piece) -> Shown:
        """Images for D and G. The graph reaches all weights that require a gradient now."""
        real, fake, made = self.game.show(self.G, piece.z, piece.real)
        shown = fake.map(self.images)
        x = shown.x if made.x is fake.x else self.images(made.x)
        return Shown(real.map(self.images), shown, made._replace(x=x))

    def to_d(self, piece: Piece) -> Shown:
        """Images for D's update, without a graph, mixed with old images if there is a pool."""
        if self.game.reuse:
            self.kept = None  # free the graph of an earlier update
            with trainable(self.optimizer):
                self.kept = self.to_both(piece)
            return detached(self.kept)
        with torch.no_grad():
            shown = self.to_both(piece)
        return shown if self.pool is None else shown._replace(fake=self.pool(shown.fake))

    def to_terms_of_d(self, piece: Piece) -> Shown:
        """New images for a step that D's terms take on their own, without a graph. Kept and old images stay."""
        with torch.no_grad():
            return self.to_both(piece)

    def to_g(self, piece: Piece) -> Shown:
        """Images for G's update, with their graph: the images of D's last update if they were kept.

        Raises:
            ValueError: if the number of kept images is not the number of images in this update.
        """
        kept, self.kept = self.kept, None
        if kept is None:
            return self.to_both(piece)
        if len(kept.fake.x) != len(piece.real.x):
            raise ValueError(
                f"game.reuse=true: G's update on {len(piece.real.x)} images follows one of D on {len(kept.fake.x)}. "
                "Give both the same batch, or set game.reuse=false."
            )
        return kept


def detached(shown: Shown) -> Shown:
    made = Generated(*(None if part is None else cut(part) for part in shown.made))  # type: ignore[arg-type]
    return Shown(shown.real.map(cut), shown.fake.map(cut), made)


def cut(t: Tensor) -> Tensor:
    return t.detach() if t.requires_grad else t
