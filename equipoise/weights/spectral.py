"""W / σ(W) with σ from a power iteration: the parametrisation that `SpectralNorm` registers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.compute.precision import without_autocast

from .matrices import as_matrix

__all__ = ["DividedBySigma"]

FIRST_ITERATIONS = 15
"""Power iterations on the random vectors that a network is built with."""
LARGE = 2**16
"""Size of a weight, in numbers, from which passes over it cost more than a call of a custom autograd function."""


class DividedBySigma(nn.Module):
    """The parametrisation W -> W / σ, σ = uᵀ W v, with unit vectors u and v that track the first singular vectors.

    In training mode each forward first moves u to Wv / ‖Wv‖ and v to Wᵀu / ‖Wᵀu‖, `iterations` times (Miyato et al.
    2018, alg. 1). u and v are buffers, named as in `torch.nn.utils.parametrizations.spectral_norm`, and the numbers
    are the same. Unlike there, all is float32 even under autocast, and the gradient takes three passes over a large W.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, iterations: int = 1, axis: int = 0, eps: float = 1e-12):
        """axis: the axis of `weight` that counts its outputs."""
        super().__init__()
        self.iterations, self.axis, self.eps = iterations, axis, eps
        matrix = as_matrix(weight.detach(), axis)
        for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
            self.register_buffer(name, matrix.new_empty(size).normal_())
        for vector in (self._u, self._v):
            F.normalize(vector, dim=0, eps=eps, out=vector)
        self.iterate(matrix, FIRST_ITERATIONS)

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight):
            if self.training:
                self.iterate(as_matrix(weight.detach(), self.axis), self.iterations)
            u, v = self._u.clone(), self._v.clone()  # a backward needs the vectors of its own forward
            if weight.numel() < LARGE or torch.compiler.is_compiling():  # the compiler fuses the passes itself
                return weight / along(weight, u, v, self.axis)
            sigma = along(weight.detach(), u, v, self.axis)
            normalized: Tensor = DivideByNorm.apply(weight, sigma, u, v, self.axis)  # type: ignore[no-untyped-call]
        return normalized

    def right_inverse(self, weight: Tensor) -> Tensor:
        """W itself: a weight assigned to the layer is divided from then on."""
        return weight

    @torch.no_grad()
    def iterate(self, matrix: Tensor, iterations: int) -> None:
        iterated = opaque_iteration if torch.compiler.is_compiling() else power_iteration
        u, v = iterated(matrix, self._v, iterations, self.eps)
        self._u.copy_(u)
        self._v.copy_(v)


def power_iteration(matrix: Tensor, v: Tensor, iterations: int, eps: float) -> tuple[Tensor, Tensor]:
    """Move u to Wv / ‖Wv‖ and v to Wᵀu / ‖Wᵀu‖, `iterations` >= 1 times: W (R, C), v (C,) -> u (R,), v (C,)."""
    for _ in range(iterations):
        u = F.normalize(torch.mv(matrix, v), dim=0, eps=eps)
        v = F.normalize(torch.mv(matrix.T, u), dim=0, eps=eps)
    return u, v


# The compiler may compute u and v again in the backward, from the buffer that the forward has overwritten: one
# iteration too far. The results of an opaque operator are stored instead.
opaque_iteration = torch.library.custom_op("equipoise::power_iteration", power_iteration, mutates_args=())


@opaque_iteration.register_fake
def _(matrix: Tensor, v: Tensor, iterations: int, eps: float) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return matrix.new_empty(matrix.shape[0]), torch.empty_like(v)


class DivideByNorm(torch.autograd.Function):
    """W / σ(W), given σ(W) = uᵀ W v. With slope g its gradient is (g - ⟨g, W⟩ / σ · u vᵀ) / σ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, sigma: Tensor, *_: Any) -> Tensor:
        return weight / sigma

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        *tensors, ctx.axis = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (slope,), (weight, sigma, u, v) = slopes, ctx.saved_tensors
        if torch.is_grad_enabled():  # this gradient will be differentiated again, and σ is a function of W
            sigma = along(weight, u, v, ctx.axis)
        inner = torch.dot(slope.flatten(), weight.flatten())
        matrix = torch.addcmul(as_matrix(slope, ctx.axis), (-inner / sigma) * u[:, None], v)
        moved = matrix.view(weight.movedim(ctx.axis, 0).shape).movedim(0, ctx.axis)
        return moved / sigma if torch.is_grad_enabled() else moved.div_(sigma), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, change: Tensor, *_: Any) -> Tensor:
        weight, sigma, u, v = ctx.saved_tensors
        changed: Tensor = change / sigma - weight * (along(change, u, v, ctx.axis) / sigma**2)
        return changed


def along(weight: Tensor, u: Tensor, v: Tensor, axis: int) -> Tensor:
    """uᵀ W v, ()."""
    return torch.dot(u, torch.mv(as_matrix(weight, axis), v))
