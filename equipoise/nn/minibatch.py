"""Layers that let D compare the images of a batch, so that it sees a generator collapse.

Real and generated images must come in separate batches, as they do in the trainer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MinibatchDiscrimination", "MinibatchStd"]


class MinibatchDiscrimination(nn.Module):
    """Append o(h_i)_b = Σ_j exp(-‖M_ib - M_jb‖₁), how close image i is to the batch by each of B learned measures.

    h (N, F) -> (N, F + kernels). M_i = h_i T is a matrix of `kernels` rows and `dims` columns, T a learned tensor
    (F, kernels, dims). (Salimans et al. 2016, sec. 3.2)

    As in the paper, the sum runs over all j of the batch. It includes i itself, which adds 1. So o lies in [1, N] and
    grows with N: train and evaluate at one batch size. Memory: N² · kernels · dims numbers.
    """

    def __init__(self, features: int, kernels: int = 100, dims: int = 5):
        super().__init__()
        self.kernels, self.dims = kernels, dims
        self.T = nn.Linear(features, kernels * dims, bias=False)  # a bias would cancel

    def forward(self, h: Tensor) -> Tensor:
        """Raises ValueError if h is not (N, F)."""
        if h.ndim != 2:
            raise ValueError(f"MinibatchDiscrimination takes features (N, F), got {tuple(h.shape)}; flatten them first")
        M = self.T(h).unflatten(1, (self.kernels, self.dims))  # (N, B, C)
        M = M.to(torch.promote_types(M.dtype, torch.float32))
        distance = (M[:, None] - M[None, :]).abs().sum(3)  # (N, N, B)
        return torch.cat([h, (-distance).exp().sum(1).to(h.dtype)], dim=1)


class MinibatchStd(nn.Module):
    """Append the standard deviation over a group of images, averaged over features and positions, as a flat map.

    h (N, F, H, W) -> (N, F + new_channels, H, W). The batch is split into groups of G images. Each new channel covers
    F / new_channels neighbouring features: the mean, over these features and all positions, of √(variance over the
    group + 1e-8). (Karras et al. 2018, sec. 3; in the form of StyleGAN2, Karras et al. 2020)

    group_size: G; a smaller batch is one group; None: every batch is one. Image i is in group i mod (N / G), so
        neighbours in the batch are in different groups. The variance divides by G, not by G - 1.
    new_channels: number of maps to append.
    """

    def __init__(self, group_size: int | None = 4, new_channels: int = 1):
        super().__init__()
        self.group_size, self.new_channels = group_size, new_channels

    def forward(self, h: Tensor) -> Tensor:
        """Raises ValueError if the groups do not divide N, or the new channels F."""
        N, F, H, W = h.shape
        G = N if self.group_size is None else min(self.group_size, N)
        given = f"MinibatchStd(group_size={self.group_size}, new_channels={self.new_channels}) got"
        if F % self.new_channels:
            raise ValueError(f"{given} {F} features: give a multiple of {self.new_channels}")
        if N % G:
            raise ValueError(
                f"{given} {N} images, which do not split into groups of {G}: set batch_size to a multiple of {G} times "
                "the number of processes"
            )
        groups = h.to(torch.promote_types(h.dtype, torch.float32)).unflatten(1, (self.new_channels, -1))
        groups = groups.unflatten(0, (G, N // G))  # (G, N / G, new, F / new, H, W)
        std = (groups.var(0, correction=0) + 1e-8).sqrt()
        maps = std.mean((2, 3, 4)).repeat(G, 1)[:, :, None, None]  # (N, new, 1, 1)
        return torch.cat([h, maps.expand(-1, -1, H, W).to(h.dtype)], dim=1)
