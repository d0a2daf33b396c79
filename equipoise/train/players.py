"""A player as its update sees it: a network, an optimiser, and the terms that it minimises."""

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
    """D or G.

    name: "D" or "G", the prefix of reported statistics.
    terms: the player minimises their weighted sum.
    purpose: of the latents of its updates.
    show: piece -> images, as this player's terms see them.
    purpose_of_terms, show_terms: the same for a step that terms take on their own.
    updates: nimg -> number of updates made when D has seen nimg images.
    after: functions called with the network after each of its steps.
    read: scalars to report from an update.
    reread: scalars to report when penalties have called D on real images again.
    watch: scalars to report from held-out images, computed first, without gradients.
    times: number of generated images for each real image.
    """

    name: str
    net: nn.Module
    optim: torch.optim.Optimizer
    terms: Sequence[Term]
    purpose: Purpose
    show: Callable[[Piece], Shown]
    purpose_of_terms: Purpose
    show_terms: Callable[[Piece], Shown]
    updates: Callable[[int], int]
    after: Sequence[Callable[[nn.Module], None]] = ()
    read: Callable[[Seen], dict[str, Tensor]] = lambda _: {}
    reread: Callable[[Sequence[Tensor]], dict[str, Tensor]] = lambda _: {}
    watch: Callable[[Batch | None], dict[str, Tensor]] = lambda _: {}
    times: int = 1
