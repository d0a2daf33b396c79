"""A player as its update sees it: a network, an optimiser, and the terms of what it minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equipoise.compute.pieces import Piece
from equipoise.core.randomness import Purpose
from equipoise.core.types import Batch
from equipoise.losses import Seen, Term
from equipoise.rules import Shown

__all__ = ["Player"]


@dataclass(frozen=True)
class Player:
    """One of the two.

    name: "D" or "G", under which statistics are reported.
    terms: what it minimises the weighted sum of.
    purpose: of the latents of its updates.
    show: the images of a piece, as this player's terms see them.
    updates: how many updates it has made when D has seen nimg images.
    after: called with its network after each of its steps.
    read: scalars to report of what was seen.  watch: likewise, computed first, without gradients.
    times: how many images it generates for each real one.
    """

    name: str
    net: nn.Module
    optim: torch.optim.Optimizer
    terms: Sequence[Term]
    purpose: Purpose
    show: Callable[[Piece], Shown]
    updates: Callable[[int], int]
    after: Sequence[Callable[[nn.Module], None]] = ()
    read: Callable[[Seen], dict[str, Tensor]] = lambda _: {}
    watch: Callable[[Batch | None], dict[str, Tensor]] = lambda _: {}
    times: int = 1
