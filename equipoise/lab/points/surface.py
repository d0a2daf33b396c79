"""The value surface of a D that reads points of the plane: its level lines, and arrows along its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from equipoise.core.plots import Axes

__all__ = ["draw_surface", "gradient", "surface", "view_of"]

ARROWS = 16
"""Arrows on each side of the square."""
LEVELS = 16
FULL = 0.9
"""Share of the arrows whose length shows the gradient's. The others are cut to the longest of these."""


def surface(
    value: Callable[[Tensor], Tensor], *, extent: tuple[float, float, float, float], size: int = 60
) -> dict[str, Any]:
    """`value` on size x size points of a rectangle, and its gradient on fewer points.

    value: (N, 2) -> (N,), differentiable; the logit of a D in eval mode.  extent: left, right, bottom, top.

    Returns:
        extent; values (size, size), row by row from the bottom; arrows: points (M, 2) and gradients (M, 2) there.
    """
    left, right, bottom, top = extent
    corners = lattice(torch.linspace(left, right, size), torch.linspace(bottom, top, size))
    centres = (torch.arange(ARROWS) + 0.5) / ARROWS
    points = lattice(left + (right - left) * centres, bottom + (top - bottom) * centres)
    with torch.no_grad():
        values = value(corners).view(size, size)
    return {
        "extent": list(extent),
        "values": values,
        "arrows": {"points": points, "gradients": gradient(value, points)},
    }


def gradient(value: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The gradient of `value` at each of the points, (N, 2) -> (N, 2)."""
    x = points.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(value(x).sum(), x)
    return slope


def lattice(x: Tensor, y: Tensor) -> Tensor:
    """All (x, y), (X,) and (Y,) -> (Y·X, 2), x changing fastest."""
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=1)


def view_of(real: Tensor) -> tuple[float, float, float, float]:
    """A square with room around points (N, 2): left, right, bottom, top."""
    low, high = real.aminmax(dim=0)
    (x, y), side = ((low + high) / 2).tolist(), 0.7 * (high - low).max().item()
    return x - side, x + side, y - side, y + side


def draw_surface(ax: Axes, found: Mapping[str, Any]) -> None:
    """Draw filled level lines of the value, blue where it is high, and arrows along the gradient, uphill.

    found: the result of `surface`.

    The levels have equal distances, from the lowest value to the highest. Of 16 x 16 arrows, nine tenths are as long as
    the gradient, in a unit of their own. The steepest are cut to the longest of these.
    """
    left, right, bottom, top = found["extent"]
    values = torch.as_tensor(found["values"])
    rows, columns = values.shape
    low, high = values.min().item(), values.max().item()
    if high > low:  # a constant value has nothing to draw
        x, y = torch.linspace(left, right, columns), torch.linspace(bottom, top, rows)
        levels = torch.linspace(low, high, LEVELS + 1, dtype=torch.float64)
        ax.contourf(x, y, values, levels, cmap="RdBu", alpha=0.45, zorder=0, extend="both")
        ax.contour(x, y, values, levels, colors="k", linewidths=0.4, alpha=0.45, linestyles="solid", zorder=0.5)
    points, gradients = (torch.as_tensor(found["arrows"][key]) for key in ("points", "gradients"))
    norms = gradients.norm(dim=1, keepdim=True)
    longest = norms.quantile(FULL).item()
    if longest > 0:
        cut = gradients * (longest / norms.clamp_min(longest))
        spacing = min(right - left, top - bottom) / ARROWS
        ax.quiver(
            *points.T,
            *cut.T,
            angles="xy",
            scale_units="xy",
            scale=longest / (0.9 * spacing),
            width=0.003,
            color="k",
            alpha=0.55,
            zorder=1,
        )
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
