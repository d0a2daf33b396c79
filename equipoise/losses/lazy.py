"""Lazy regularisation as its authors train: the regulariser in an optimiser step of its own (Karras et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from equipoise.core.types import ImageSpec, component

from .base import Memory, Place, Players, Seen, Term
from .penalties import R1

__all__ = ["LazyStep", "share_of_steps"]


@component
class LazyStep(Term):
    """`term` in an optimiser step of its own, right after its player's step (Karras et al. 2020, app. B).

    The term is due as often as it says, at every k-th update, and counts k times then. Its gradient goes into a second
    step of the same optimiser, from weights that the first step has moved. The second step has z of its own, and the
    real images of the first. Terms of one player share that step.

    k + 1 steps do the work of k. So every step of that optimiser has lr · r and betas ** r, r = k / (k + 1).

    term: such as R1(every=16) for D, PathLength(every=4) for G.
    """

    term: Term = R1()

    own_step = True

    def __post_init__(self) -> None:
        """Raises ValueError for a term that is a loss, or that has a step of its own already: the first step would
        have nothing to minimise. Give a penalty or a regulariser.
        """
        if self.term.opposes or self.term.replaces_loss or self.term.own_step:
            raise ValueError(
                f"LazyStep takes a term that is added to its player's loss, got {self.term!r}: give a penalty or a "
                "regulariser, such as LazyStep(R1(every=16))"
            )

    @property
    def every(self) -> int:  # type: ignore[override]
        return self.term.every

    @property
    def player(self) -> Players:  # type: ignore[override]
        return self.term.player

    @property
    def place(self) -> Place:  # type: ignore[override]
        return "whole" if self.term.place == "whole" else "apart"

    @property
    def of_gradient(self) -> bool:  # type: ignore[override]
        return self.term.of_gradient

    @property
    def memory(self) -> Memory | None:  # type: ignore[override]
        return self.term.memory

    @property
    def name(self) -> str | None:
        return self.term.name

    def weight(self, nimg: int) -> float:
        return self.term.weight(nimg)

    def of(self, seen: Seen) -> Tensor:
        return self.term.of(seen)

    def for_data(self, spec: ImageSpec, batch_size: int) -> Term:
        return LazyStep(self.term.for_data(spec, batch_size))

    def at_work(self, net: nn.Module) -> Term:
        return LazyStep(self.term.at_work(net))

    def check(self, cfg: Any) -> None:
        """Raises ValueError for terms of one player with own steps at different intervals: the optimiser's correction
        is for one. Give them the same `every`.

        Raises ValueError for an own step of an optimiser that does not say how to correct for it. Use `Adam` or
        `RMSprop`.
        """
        terms = (*cfg.game.terms(), *cfg.terms)
        for player, optim in (("D", cfg.d_optim), ("G", cfg.g_optim)):
            intervals = sorted({term.every for term in own_steps(terms, player)})
            if len(intervals) > 1:
                raise ValueError(
                    f"{self!r}: the own steps of {player}'s terms come at intervals of {intervals} updates, and the "
                    f"correction of its optimiser is for one. Give them the same `every`, such as every={intervals[0]}."
                )
            if intervals:
                optim.slowed(share_of_steps(terms, player))


def own_steps(terms: Iterable[Term], player: str) -> list[Term]:
    """The terms of a player whose gradient goes into a step of their own."""
    return [term for term in terms if term.own_step and term.player in (player, "both")]


def share_of_steps(terms: Iterable[Term], player: str) -> float:
    """Share k / (k + 1) of the optimiser steps of a player that minimise its loss; 1 without own steps of terms."""
    interval = next((term.every for term in own_steps(terms, player)), None)
    return 1.0 if interval is None else interval / (interval + 1)
