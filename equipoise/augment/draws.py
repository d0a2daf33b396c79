"""Random numbers for each image, in force with probability p."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Draws"]


class Draws:
    """Fresh numbers for images x (N, C, H, W), made on their device: no copy from the host, no wait for the device.

    p: (), the probability that a number is in force.
    """

    def __init__(self, p: Tensor, x: Tensor):
        self.p, self.n, self.device, self.dtype = p, len(x), x.device, x.dtype
        self.height, self.width = x.shape[2:]

    def fire(self, value: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """`value` (N, ...) for images drawn with probability p (None: `self.p`), `neutral` for the others."""
        fires = self.uniform(0, 1) < (self.p if p is None else p)  # never at p = 0, always at p = 1
        return torch.where(fires.view(-1, *[1] * (value.ndim - 1)), value, neutral)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(N, *shape)."""
        return low + (high - low) * torch.rand(self.n, *shape, device=self.device, dtype=self.dtype)

    def normal(self, std: float, *shape: int) -> Tensor:
        """(N, *shape), of mean 0."""
        return std * torch.randn(self.n, *shape, device=self.device, dtype=self.dtype)

    def lognormal(self, octaves: float) -> Tensor:
        """(N,), factors whose logarithm to base 2 is N(0, octaves²)."""
        return self.normal(octaves).exp2()

    def integer(self, stop: int) -> Tensor:
        """(N,), one of 0 ... stop - 1, as a float."""
        return torch.randint(stop, (self.n,), device=self.device).to(self.dtype)
