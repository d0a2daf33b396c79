"""The field of a game, v = (-∂L_G/∂θ_G, -∂L_D/∂θ_D), and products with its Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .norms import WrittenOut
from .stopped import Stops

__all__ = ["Field", "Jacobian"]


@dataclass(frozen=True)
class Field:
    """The field in which both players descend at once, on one batch and with one draw of everything random.

        x, y = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in "GD")
        field = Field([x], [y], lambda: ((x * y).sum(), -(x * y).sum()))
        field.v()  # (n,)
        Jacobian(field)(u)  # J u, (n,)

    G, D: weights of the players, leaves that require a gradient. As one vector (n,), G's come first.
    losses: () -> (L_G, L_D) at the current values of the weights, () each. Both graphs reach all weights on which the
        losses depend. Each call draws the same numbers.
    """

    G: Sequence[Tensor]
    D: Sequence[Tensor]
    losses: Callable[[], tuple[Tensor, Tensor]]

    @property
    def weights(self) -> list[Tensor]:
        """All weights, G's first."""
        return [*self.G, *self.D]

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of weights of G and of D."""
        return sum(w.numel() for w in self.G), sum(w.numel() for w in self.D)

    def place(self) -> Tensor:
        """The weights as one vector, (n,), a copy."""
        return flat(self.weights).detach().clone()

    @contextmanager
    def at(self, place: Tensor) -> Iterator[None]:
        """The block in which the weights have the values of `place` (n,)."""
        before = [weight.data for weight in self.weights]
        sizes = [weight.numel() for weight in self.weights]
        for weight, part in zip(self.weights, place.detach().split(sizes), strict=True):
            weight.data = part.to(weight).view_as(weight).clone()
        try:
            yield
        finally:
            for weight, values in zip(self.weights, before, strict=True):
                weight.data = values  # the same memory: a Jacobian made before the block is valid after it

    def v(self, *, graph: bool = False) -> Tensor:
        """The field at the current weights, (n,). graph: differentiable in all weights."""
        with torch.enable_grad():
            with WrittenOut(), Stops() as stops:
                losses = self.losses()
            with stops.first():
                parts = [gradient(loss, ws) for loss, ws in zip(losses, (self.G, self.D), strict=True)]
        v = -torch.cat(parts)
        return v if graph else v.detach()


class Jacobian:
    """J = ∂v/∂θ at the field's current weights, (n, n), as a function u -> J u.

    J is not symmetric, and a backward computes Jᵀ w. Jᵀ w is linear in w, with the Jacobian Jᵀ. So a second backward,
    through w, computes (Jᵀ)ᵀ u = J u. The graph of Jᵀ w is made once, and each product costs one backward.

    Raises:
        ValueError: if an operation of the game lacks the derivatives, or a product is asked for after the weights have
            moved.
    """

    def __init__(self, field: Field):
        self.field, self.place = field, field.place()
        with told():
            v = field.v(graph=True)
            require_derivatives(v)
            self.cotangent = torch.zeros_like(v, requires_grad=True)
            self.pulled = None  # if v is constant, J is 0
            if v.requires_grad:
                self.pulled = flat(
                    torch.autograd.grad(v, field.weights, self.cotangent, create_graph=True, materialize_grads=True)
                )

    def __call__(self, u: Tensor) -> Tensor:
        """J u, (n,) -> (n,)."""
        if not torch.equal(self.field.place(), self.place):
            raise ValueError("the weights have moved since this Jacobian was made: make another one, Jacobian(field)")
        if self.pulled is None or not self.pulled.requires_grad:
            return torch.zeros_like(u)
        with told():
            (product,) = torch.autograd.grad(self.pulled, self.cotangent, u, retain_graph=True, materialize_grads=True)
        return product

    def dense(self) -> Tensor:
        """The matrix (n, n), from n products."""
        return torch.stack([self(e) for e in torch.eye(len(self.cotangent)).to(self.cotangent)], dim=1)


def gradient(loss: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The gradient of `loss` as one vector, with a graph. Weights that the loss does not read get 0."""
    if not loss.requires_grad:
        return flat([torch.zeros_like(w) for w in weights])
    return flat(torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True))


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def require_derivatives(v: Tensor) -> None:
    """Raise RuntimeError if the graph of `v` ends at a gradient that its author marked `once_differentiable`.

    Autograd takes such an end for a constant, if asked for the gradient of weights behind it.
    """
    todo, seen = [v.grad_fn], set[Node]()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            raise RuntimeError("one gradient is marked once_differentiable")
        todo += [after for after, _ in node.next_functions]


@contextmanager
def told() -> Iterator[None]:
    """Explain an error of autograd that is about a derivative it cannot take."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"the Jacobian needs derivatives of this game's gradients, and PyTorch cannot take one of them: {error}. "
            "Take another network, augmentation or term"
        ) from None
