"""Between checkpoints: the field along the line from one to another, and the gradients at averaged weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .field import Field

__all__ = ["Gradients", "Path", "gradients", "path"]


class Path(NamedTuple):
    """The field v along the line θ(α) = a + α (b - a) (Berard et al. 2020, sec. 4).

    alphas: α of each point, (P,); a is at 0, b at 1.
    norms: the path norm ‖v(θ(α))‖, (P,).
    cosines: the path angle, cos ∠(b - a, v(θ(α))), (P,). Berard's v is the gradient, so the signs are opposite there.

    Near an attracting b the cosine falls from 1 to -1 at α = 1. If b is circled, v stays across the line: the cosine
    does not change its sign there, but has a bump. A mixture of both falls to one side of a bump.
    """

    alphas: Tensor
    norms: Tensor
    cosines: Tensor


def path(field: Field, a: Tensor, b: Tensor, *, points: int = 25, until: float = 1.5) -> Path:
    """Path norm and path angle from the weights `a` (n,) over `b` (n,) to α = `until`, on the batch of `field`.

        path(field, early.place(), field.place())

    points: their number.

    Raises:
        ValueError: if a and b are one place, or of another size.
    """
    n = sum(field.sizes)
    if a.shape != (n,) or b.shape != (n,):
        raise ValueError(f"expected two places of {n} weights, got {tuple(a.shape)} and {tuple(b.shape)}")
    line = (b - a).to(field.weights[0])
    if not line.norm() > 0:
        raise ValueError("the line needs two different checkpoints, and these hold the same weights")
    alphas = torch.linspace(0, until, points, dtype=torch.float64)
    norms, cosines = [], []
    for alpha in alphas.tolist():
        with field.at(a.to(line) + alpha * line):
            v = field.v()
        norms.append(v.norm())
        cosines.append(v @ line / (v.norm() * line.norm()).clamp_min(torch.finfo(v.dtype).tiny))
    return Path(alphas, torch.stack(norms).cpu(), torch.stack(cosines).cpu())


class Gradients(NamedTuple):
    """‖∂L_G/∂θ_G‖ and ‖∂L_D/∂θ_D‖ with the last G and with the averaged G. D is the last in both.

    aligned: cosine between -∂L_G/∂θ_G at the averaged weights and the way from there to the last weights. Near 1, G
        would move back to the last weights; near -1, beyond the average.
    """

    last: tuple[float, float]
    averaged: tuple[float, float]
    aligned: float


def gradients(field: Field, averaged: Tensor) -> Gradients:
    """Gradients of the players at the last weights, and with the averaged weights of G in `averaged` (n,).

    If the last weights circle an equilibrium, the average is nearer to it and its gradients are smaller.
    """
    last = field.place()
    g, d = field.v().split(field.sizes)
    place = averaged.to(last)
    with field.at(torch.cat([place[: field.sizes[0]], last[field.sizes[0] :]])):
        g_of_mean, d_of_mean = field.v().split(field.sizes)
    back = (last - place)[: field.sizes[0]]
    size = (back.norm() * g_of_mean.norm()).clamp_min(torch.finfo(g.dtype).tiny)
    return Gradients(
        (float(g.norm()), float(d.norm())),
        (float(g_of_mean.norm()), float(d_of_mean.norm())),
        float(back @ g_of_mean / size),
    )
