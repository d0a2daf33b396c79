"""Leading eigenvalues of a large matrix that is known by its products: Arnoldi's iteration, with error bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Ritz", "arnoldi"]


class Ritz(NamedTuple):
    """Ritz pairs of a matrix A, one for each step.

    values: (k,) complex.
    residuals: ‖A x - λ x‖ of each pair with ‖x‖ = 1, (k,).  condition: κ of each value, (k,), at least 1.
    """

    values: Tensor
    residuals: Tensor
    condition: Tensor

    @property
    def errors(self) -> Tensor:
        """Error bars κ · residual, (k,). λ is exact for a matrix as far from A as its residual (Bauer & Fike 1960)."""
        return self.condition * self.residuals


def arnoldi(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Ritz:
    """Ritz pairs of a matrix (n, n) on the Krylov space of `start` (n,) (Arnoldi 1951; Saad 2011, alg. 6.2).

    Each new vector is made orthogonal to all earlier ones twice. A space that the matrix maps into itself is left by
    another direction. So min(n, `steps`) steps are made, and n steps find all n eigenvalues.
    """
    n = len(start)
    steps = min(steps, n)
    basis = start.new_zeros(steps + 1, n)
    H = start.new_zeros(steps + 1, steps)
    random = torch.Generator().manual_seed(0)
    basis[0] = start / start.norm()
    for j in range(steps):
        w = product(basis[j])
        new, H[: j + 1, j] = orthogonal(w, basis[: j + 1])
        if new.norm() > 100 * torch.finfo(w.dtype).eps * w.norm():
            H[j + 1, j] = new.norm()
        elif j + 1 < n:  # an invariant space
            while not new.norm() > 0.01:
                drawn = torch.randn(n, generator=random, dtype=torch.float64).to(w)
                new, _ = orthogonal(drawn / drawn.norm(), basis[: j + 1])
        else:
            break
        basis[j + 1] = new / new.norm()
    return pairs(H.to("cpu", torch.float64), torch.finfo(start.dtype).eps)


def orthogonal(w: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """W (n,) without its part along the orthonormal `basis` (j, n), and the coefficients of that part, (j,)."""
    first = basis @ w
    w = w - first @ basis
    second = basis @ w  # rounding of the first pass
    return w - second @ basis, first + second


def pairs(H: Tensor, eps: float) -> Ritz:
    """Ritz pairs from the Hessenberg matrix H (k + 1, k). eps: relative rounding error of the products."""
    k = H.shape[1]
    values, Y = torch.linalg.eig(H[:k])  # columns of norm 1
    residuals = H[k, k - 1].abs() * Y[-1].abs() + eps * H.norm()
    left = torch.linalg.pinv(Y, rtol=0.0)  # rows; κ = ‖left‖ ‖right‖ where left · right = 1
    return Ritz(values, residuals, left.norm(dim=1).clamp_min(1))
