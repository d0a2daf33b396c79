"""Joint penalties: functions of both players' gradients that both players minimise, besides their losses.

A joint penalty needs both losses at once, on the same images, with graphs that reach both networks: generated images
keep their history. In your own loop:

    value = consensus.weight(nimg) * consensus(d_loss, g_loss, list(D.parameters()), list(G.parameters()))
    (d_loss + value).backward(inputs=list(D.parameters()))  # and G's likewise
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from equipoise.core.schedules import Schedule, at
from equipoise.core.types import component

from .base import Place, Seen, Term

__all__ = ["Consensus", "JointPenalty"]


class JointPenalty(Term):
    """A penalty on both players: each minimises it, at every `every`-th update of its own."""

    player = "both"
    place: ClassVar[Place] = "whole"
    whole_batch: ClassVar[bool] = True

    @abstractmethod
    def __call__(
        self, d_loss: Tensor, g_loss: Tensor, d_weights: Sequence[Tensor], g_weights: Sequence[Tensor]
    ) -> Tensor:
        """-> (), unweighted, differentiable in both players' weights.

        d_loss, g_loss: (), the losses of D and G, each with a graph that reaches all weights.
        d_weights, g_weights: the weights that D and G train.
        """

    def check(self, cfg: Any) -> None:
        """Raises ValueError for a joint penalty with `head.san=true`: the gradients of a SAN head lack the parts that
        it holds fixed. Set `head.san=false`.

        Raises ValueError for a joint penalty with `compute.compile`: compiled networks refuse second derivatives. Set
        `compute.compile=false`.
        """
        super().check(cfg)
        if cfg.head.san:
            raise ValueError(
                f"{self!r} and head.san=true do not go together: a joint penalty differentiates gradients, and a SAN "
                "head freezes parts of itself to make them, so second derivatives lack those parts. Use a plain head "
                "(head.san=false), or no joint penalty."
            )
        if cfg.compute.compile:
            raise ValueError(
                f"compute.compile={str(cfg.compute.compile).lower()} and {self!r} do not go together: a joint penalty "
                "differentiates the losses twice, which compiled networks refuse. Use compute.compile=false, or no "
                "joint penalty."
            )

    def of(self, seen: Seen) -> Tensor:
        with seen.both_losses() as losses:
            return self(*losses)


@component
class Consensus(JointPenalty):
    """gamma/2 ‖v‖², v = (∇_θ L_D, ∇_φ L_G) the gradients of both players, θ of D and φ of G: consensus optimisation.

    Mescheder, Nowozin & Geiger 2017, sec. 4: gamma times L = ½‖v‖² is added to both losses. At an equilibrium v is 0,
    so equilibria stay where they are. Around an equilibrium, the eigenvalues of the game's Jacobian move to the side on
    which gradient descent converges. Without the penalty they may lie on the imaginary axis, and gradient descent
    circles. The paper's image experiments have gamma = 10, RMSprop, and simultaneous steps.

    v is taken on a batch, so the mean of ‖v‖² exceeds the squared mean gradient by the gradients' variance. Each of
    several processes takes the gradients of its own share of the batch.
    """

    gamma: Schedule = 10.0
    every: int = Field(default=1, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.gamma, nimg) / 2

    def __call__(
        self, d_loss: Tensor, g_loss: Tensor, d_weights: Sequence[Tensor], g_weights: Sequence[Tensor]
    ) -> Tensor:
        """Raises ValueError if a loss is not a scalar, or its graph does not reach both networks."""
        if d_loss.ndim or g_loss.ndim:
            raise ValueError(
                f"the losses of D and G must be scalars, got shapes {tuple(d_loss.shape)} and {tuple(g_loss.shape)}: "
                "take their means"
            )
        for player, loss in (("D", d_loss), ("G", g_loss)):
            for other, weights in (("D", d_weights), ("G", g_weights)):
                if not reaches(loss, weights):
                    raise ValueError(
                        f"the gradient of {player}'s loss does not reach the weights of {other}, so it is blind to how "
                        f"{other} moves. Compute both losses on generated images with their history (no detach(), no "
                        "torch.no_grad()), while the weights of both networks require a gradient."
                    )
        squares = [
            gradient.square().sum()
            for loss, weights in ((d_loss, d_weights), (g_loss, g_weights))
            for gradient in torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            if gradient is not None  # a weight that the loss does not read has the gradient 0
        ]
        return torch.stack(squares).sum()


def reaches(loss: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether the graph of `loss` leads to any of `weights`."""
    targets = {get_gradient_edge(weight).node for weight in weights if weight.requires_grad}
    todo, seen = [loss.grad_fn], set[Node]()
    while todo:
        node = todo.pop()
        if node in targets:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            todo += [after for after, _ in node.next_functions]
    return False
