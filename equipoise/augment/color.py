"""Random colour transforms, as one affine map of the colours per image (Karras et al. 2020, app. B).

The grey axis v = (1, 1, 1)/√3 is an eigenvector of all five transforms, so they compose to a few numbers. Brightness
adds b, and contrast scales everything by c. The luma flip multiplies the component along v by ±1. Saturation scales the
components across v by s, and hue rotates them by θ:

    x -> ± c P (x + b) + c s (cos θ Q + sin θ K) x,    P = v vᵀ, Q = 1 - P, K x = v × x.

Grey images lie on the axis: x -> ± c (x + b).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import Draws

__all__ = ["recolor"]


def recolor(x: Tensor, draws: Draws) -> Tensor:
    """Recolour images (N, 1 or 3, H, W) in [-1, 1] -> same shape, not clamped.

    Brightness adds N(0, 0.2²), contrast is 2^N(0, 0.5²), half of the images get the luma flip, hue rotates by U(-π, π),
    saturation is 2^N(0, 1).
    """
    brightness = draws.fire(draws.normal(0.2), 0)
    contrast = draws.fire(draws.lognormal(0.5), 1)
    flip = draws.fire(1 - 2 * draws.integer(2), 1)
    hue = draws.fire(draws.uniform(-math.pi, math.pi), 0)
    saturation = draws.fire(draws.lognormal(1), 1)

    along, across = contrast * flip, contrast * saturation
    if x.shape[1] == 1:
        matrix = along.view(-1, 1, 1)
        neutral = (brightness == 0) & (along == 1)
    else:
        matrix = color_matrix(along, across, hue)
        neutral = (brightness == 0) & (along == 1) & (across == 1) & (hue == 0)
    offset = (along * brightness).view(-1, 1, 1)
    changed = torch.baddbmm(offset, matrix, x.flatten(2)).view_as(x)
    return torch.where(neutral.view(-1, 1, 1, 1), x, changed)  # multiplying by 1 would round


def color_matrix(along: Tensor, across: Tensor, hue: Tensor) -> Tensor:
    """(N,) each -> (N, 3, 3): along P + across (cos hue Q + sin hue K)."""
    along, across, hue = (number.view(-1, 1, 1) for number in (along, across, hue))
    one = torch.eye(3, device=hue.device, dtype=hue.dtype)
    P = torch.full_like(one, 1 / 3)
    K = (one.roll(1, 0) - one.roll(-1, 0)) / math.sqrt(3)
    return along * P + across * (hue.cos() * (one - P) + hue.sin() * K)
