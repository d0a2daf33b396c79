"""The number of D's updates before each update of G: fixed, or until D's loss converges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from equipoise.compute.distributed import mean_over_ranks
from equipoise.core.types import component

__all__ = ["Rounds", "ToConvergence"]


@component
class ToConvergence:
    """Update D until its loss stops falling, before each update of G: the critic trained to optimality.

    Converged: the mean loss over the last `window` updates is at most `tolerance` (relative) below the mean over the
    `window` updates before. A Wasserstein critic then estimates the distance, and its gradient is the gradient of
    the distance (Arjovsky et al. 2017, sec. 3). Statistics of D cover the last `window` updates.

    All these updates are one iteration: averages of G, checkpoints and signals wait for its end. The loss is the
    reported `D/loss`, without penalties.

    max_steps: most updates of D before an update of G; at least two windows.
    window: updates in each of the two means that are compared.
    tolerance: relative fall of the mean loss below which D has converged.
    """

    tolerance: float = Field(default=0.01, ge=0)
    window: int = Field(default=20, ge=1)
    max_steps: int = Field(default=500, ge=1)

    def __post_init__(self) -> None:
        """Raises ValueError for `max_steps` below twice `window`: there would be no two windows to compare. Raise
        `max_steps`, or take a smaller `window`.
        """
        if self.max_steps < 2 * self.window:
            raise ValueError(
                f"max_steps={self.max_steps} is less than two windows of {self.window} updates to compare: give at "
                f"least max_steps={2 * self.window}, or a smaller window"
            )

    def check(self, cfg: Any) -> None:
        """Raises ValueError for a term of G with `every` above 1: it counts updates of G, whose number is known for a
        fixed number of D updates alone. Set `every=1`, or `d_steps=5`.
        """
        lazy = next((term for term in (*cfg.game.terms(), *cfg.terms) if term.player != "D" and term.every > 1), None)
        if lazy is not None:
            raise ValueError(
                f"{lazy!r} and d_steps={self!r} do not go together: `every` counts updates of G, whose number "
                "is a function of images seen only for a fixed number of D updates. Use every=1, or d_steps=5."
            )


class Rounds:
    """D's updates of one iteration.

    for _ in rounds:      # ends when it is G's turn
        rounds.note(update(D), nimg)
    """

    def __init__(self, steps: int | ToConvergence):
        self.until = None if isinstance(steps, int) else steps
        self.most = steps if isinstance(steps, int) else steps.max_steps
        self.stats: list[tuple[dict[str, Tensor], int]] = []

    def __iter__(self) -> Iterator[int]:
        for i in range(self.most):
            yield i
            if self.until is not None and self.converged(self.until):
                return

    def note(self, stats: dict[str, Tensor], nimg: int) -> None:
        """Record an update that ended after `nimg` images. `stats` holds its scalars, `D/loss` among them."""
        self.stats.append((stats, nimg))

    def converged(self, until: ToConvergence) -> bool:
        """Whether the loss has stopped falling. Tested every `window` updates; the host waits for the device then."""
        w = until.window
        if len(self.stats) < 2 * w or len(self.stats) % w:
            return False
        losses = torch.stack([stats["D/loss"] for stats, _ in self.stats[-2 * w :]])
        before, now = mean_over_ranks(losses.view(2, w).mean(1)).tolist()
        return not now < before - until.tolerance * abs(before)  # NaN ends it too

    def reported(self) -> list[tuple[dict[str, Tensor], int]]:
        """Statistics to write: of all updates, or of the last `window`, with the number of updates as `D/steps`."""
        if self.until is None:
            return self.stats
        steps = torch.tensor(float(len(self.stats)))
        return [
            (stats | {"D/steps": steps.to(stats["D/loss"])}, nimg) for stats, nimg in self.stats[-self.until.window :]
        ]
