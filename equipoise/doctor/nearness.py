"""Diversity of generated images against real ones, by distances between pixels. No network is needed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SIDE", "class_effect", "flattened", "spread"]

SIDE = 8
"""Images are compared at this size at most: noise and positions of edges count less there."""
NEIGHBOURS = 5
NEAR = 0.2
"""Share of the median distance between neighbours in the data, below which two images are near-duplicates."""


def flattened(x: Tensor) -> Tensor:
    """Images (N, C, H, W), made as small as `SIDE`, or points (N, F) -> (N, F') float32."""
    x = x.detach().float()
    if x.ndim == 4 and min(x.shape[2:]) > SIDE:
        x = F.adaptive_avg_pool2d(x, SIDE)
    return x.flatten(1)


def spread(fake: Tensor, real: Tensor) -> dict[str, Tensor]:
    """Numbers of generated and real images, (N, ...) each, N >= 2.

    diversity: mean distance between two generated images over the same of real images.
    duplicates, data_duplicates: share of generated, and of real, images whose nearest neighbour is a near-duplicate.
    coverage: share of real images with a generated one nearer than their k-th real neighbour; precision: the share of
        generated images that lie within such a distance of a real image (Naeem et al. 2020; Kynkäänniemi et al. 2019).
    """
    a, b = flattened(fake), flattened(real)
    n, k = min(len(a), len(b)), min(NEIGHBOURS, min(len(a), len(b)) - 1)
    a, b = a[:n], b[:n]
    own, data, across = torch.cdist(a, a), torch.cdist(b, b), torch.cdist(b, a)
    pairs = n * (n - 1)
    away = torch.full((n,), torch.inf, device=a.device).diag()  # no image is its own neighbour
    away = torch.nan_to_num(away, nan=0.0, posinf=torch.inf)
    nearest, nearest_real = (own + away).amin(1), (data + away).amin(1)
    radius = data.kthvalue(k + 1, dim=1).values  # of the k-th neighbour: the first is the image itself
    near = NEAR * nearest_real.median()
    return {
        "diversity": own.sum() / pairs / (data.sum() / pairs).clamp_min(1e-12),
        "duplicates": (nearest <= near).float().mean(),
        "data_duplicates": (nearest_real <= near).float().mean(),
        "coverage": (across.amin(1) <= radius).float().mean(),
        "precision": (across <= radius[:, None]).any(0).float().mean(),
    }


def class_effect(here: Tensor, other_class: Tensor, other_z: Tensor) -> Tensor:
    """Change of images by their class over their change by z: G(z, y), G(z, y'), G(z', y) -> (). 0: class ignored."""
    here, other_class, other_z = flattened(here), flattened(other_class), flattened(other_z)
    by_z = (here - other_z).norm(dim=1).mean()
    ratio: Tensor = (here - other_class).norm(dim=1).mean() / by_z.clamp_min(1e-12)
    return ratio
