"""Random parameters for each image, active with probability p."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Draws"]


class Draws:
    """Fresh random numbers for images x (N, C, H, W), drawn on their device, so that the host need not wait.

    p: (), the probability that `fire` returns a drawn value.
    """

    def __init__(self, p: Tensor, x: Tensor):
        self.p, self.n, self.device, self.dtype = p, len(x), x.device, x.dtype
        self.height, self.width = x.shape[2:]

    def fire(self, value: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """Keep `value` (N, ...) with probability p for each image, else `neutral`. p: None is `self.p`."""
        fires = self.uniform(0, 1) < (self.p if p is None else p)  # never at p = 0, always at p = 1
        return torch.where(fires.view(-1, *[1] * (value.ndim - 1)), value, neutral)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(N, *shape)."""
        return low + (high - low) * torch.rand(self.n, *shape, device=self.device, dtype=self.dtype)

    def normal(self, std: float, *shape: int) -> Tensor:
        """(N, *shape), with mean 0."""
        return std * torch.randn(self.n, *shape, device=self.device, dtype=self.dtype)

    def lognormal(self, octaves: float) -> Tensor:
        """(N,), factors 2^N(0, octaves²)."""
        return self.normal(octaves).exp2()

    def integer(self, stop: int) -> Tensor:
        """(N,), uniform on 0 ... stop - 1, as floats."""
        return torch.randint(stop, (self.n,), device=self.device).to(self.dtype)
