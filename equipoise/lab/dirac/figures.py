"""Figures of the Dirac-GAN: phase portraits, eigenvalues, distances over time and descents under way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equipoise.core.plots import COLORS, Axes, Figure, figure

from ..base import Numbers
from .games import stabilisers

__all__ = [
    "COURSES",
    "COURSES_OF",
    "TELLING",
    "draw_distances",
    "draw_eigenvalues",
    "draw_moving",
    "draw_portraits",
    "grid",
]

# ---- what is drawn -----------------------------------------------------------------------------------------

TELLING = (
    ("plain", "NonSaturating", "none"),
    ("plain", "NonSaturating", "R1"),
    ("plain", "NonSaturating", "instance noise"),
    ("plain", "NonSaturating", "consensus"),
    ("plain", "Wasserstein", "none"),
    ("plain", "Wasserstein", "zero-centred GP"),
    ("plain", "Wasserstein", "WGAN-GP"),
    ("SAN, direction", "NonSaturating", "R1"),
)
"""D, loss and stabiliser of the phase portraits."""
REACH = 1.6
"""Phase portraits show θ and the slope from -REACH to REACH."""
MOVING = TELLING[:3] + TELLING[4:7]
"""Phase portraits in the animation."""
COURSES_OF = ("NonSaturating", "Wasserstein")
COURSES = {
    "none": "none",
    "R1": "R1, as R2 and zero-centred GP",
    "WGAN-GP": "WGAN-GP, as DRAGAN",
    "instance noise": "instance noise",
    "consensus": "consensus",
}
"""Losses and stabilisers whose distances are drawn over time."""


def grid() -> tuple[Tensor, Tensor]:
    """θ and the slope at the arrows, (289,) each."""
    axis = torch.linspace(-REACH, REACH, 17, dtype=torch.float64)
    theta, slope = torch.cartesian_prod(axis, axis).unbind(1)
    return theta, slope


# ---- figures -----------------------------------------------------------------------------------------------


def panel_title(name: str) -> str:
    """Title of the panel for the game `name`, "D, loss, stabiliser"."""
    *D, loss, stabiliser = name.split(", ")
    what = loss if stabiliser == "none" else f"{loss} + {stabiliser}"
    return what if D == ["plain"] else f"{what}\n{', '.join(D)}"


def draw_portraits(numbers: Numbers) -> Figure:
    """Draw the field, and a descent from FAR with D and G in turn."""
    fig, axes = figure(2, 4, width=3.1, height=3.1)
    for ax, (name, shown) in zip(axes, numbers["portraits"].items(), strict=False):
        arrows(ax, numbers["grid"], shown["field"])
        path = shown["path"][:, 1]
        ax.plot(path[:, 0], path[:, 1], color=COLORS[0], linewidth=1.2)
        ax.plot(*path[0], "o", color=COLORS[0], markersize=5)
        ax.plot(0, 0, "+", color=COLORS[1], markersize=10, markeredgewidth=2)
        ax.set_title(panel_title(name), fontsize=10)
    label(axes, 4)
    return fig


def arrows(ax: Axes, grid: Tensor, field: Tensor) -> None:
    """Draw arrows of one length: the darker, the faster."""
    speed = field.norm(dim=1)
    unit = field / speed.clamp_min(1e-12)[:, None]
    shade = 0.75 - 0.45 * (speed / speed.max()).sqrt()
    ax.quiver(*grid.T, *unit.T, shade, cmap="gray", clim=(0, 1), scale=22, width=0.004, pivot="mid")
    ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")


def label(axes: Sequence[Axes], columns: int) -> None:
    for i, ax in enumerate(axes):
        if i >= len(axes) - columns:
            ax.set_xlabel("θ, where G is")
        if i % columns == 0:
            ax.set_ylabel("slope of D")


STYLES = dict(zip(stabilisers(), zip("osD^vP*Xh", (*COLORS, "#b03a7a", "#222222"), strict=True), strict=False))
"""Marker and colour of a stabiliser. New stabilisers share one style."""


def style(stabiliser: str) -> tuple[str, str]:
    return STYLES.get(stabiliser, (".", "#7a7a7a"))


def draw_eigenvalues(numbers: Numbers) -> Figure:
    """Draw the eigenvalues of three games with every stabiliser, and their path over gamma."""
    fig, axes = figure(1, 4, width=3.3, height=3.4)
    games = (("plain", "NonSaturating"), ("plain", "Wasserstein"), ("SAN, direction", "NonSaturating"))
    for ax, (D, loss) in zip(axes, games, strict=False):
        for told in numbers["verdicts"]:
            if (told["D"], told["loss"]) == (D, loss) and told["eigenvalues"] is not None:
                marker, color = style(told["stabiliser"])
                real, imaginary = told["eigenvalues"].T
                ax.plot(real, imaginary, marker, color=color, label=told["stabiliser"], fillstyle="none", markersize=8)
        ax.set_title(loss if D == "plain" else f"{loss}\n{D}", fontsize=10)
        ax.set(xlim=(-0.75, 0.25), ylim=(-1.2, 1.2))
    axes[0].legend(frameon=False, fontsize=7, loc="center left")
    locus = numbers["gammas"]
    for branch in locus["eigenvalues"].unbind(1):
        dots = axes[3].scatter(branch[:, 0], branch[:, 1], c=locus["gamma"], cmap="viridis", s=14)
    fig.colorbar(dots, ax=axes[3], label="gamma")
    axes[3].set_title("NonSaturating + R1", fontsize=10)
    for ax in axes:
        ax.axvline(0, color="#7a7a7a", linewidth=0.8)
        ax.set_xlabel("real part")
    axes[0].set_ylabel("imaginary part")
    return fig


def draw_distances(numbers: Numbers, lr: float) -> Figure:
    """Draw the distance over time, from NEAR: rows are losses, columns ways to step."""
    fig, axes = figure(2, 3, width=4.2, height=2.9)
    plans = (("plain", 0, "both at once"), ("plain", 1, "D, then G"), ("SAN, direction", 1, "D, then G"))
    for i, loss in enumerate(COURSES_OF):
        for ax, (D, scheme, how) in zip(axes[3 * i :], plans, strict=False):
            for name, words in COURSES.items():
                course = numbers["distances"][f"{D}, {loss}, {name}"][:, scheme]
                dashes = "--" if name == "instance noise" else "-"
                ax.semilogy(torch.arange(len(course)) * lr, course, dashes, color=style(name)[1], label=words)
            ax.set(ylim=(1e-8, 10), title=f"{loss}, {how}" if D == "plain" else f"{loss}, {how}\n{D}")
    for ax in axes[3:]:
        ax.set_xlabel("steps x learning rate")
    for ax in axes[::3]:
        ax.set_ylabel("distance from equilibrium")
    axes[2].legend(frameon=False, fontsize=8, loc="upper left")
    return fig


def draw_moving(numbers: Numbers) -> list[Figure]:
    """Draw descents under way from FAR, both at once and in turn."""
    frames = []
    paths = {name: numbers["portraits"][name]["path"] for name in map(", ".join, MOVING)}
    length = len(next(iter(paths.values())))
    for end in range(1, length, 5):
        fig, axes = figure(2, 3, width=1.9, height=1.95)
        for ax, (name, path) in zip(axes, paths.items(), strict=True):
            for scheme, color in ((0, COLORS[1]), (1, COLORS[0])):
                tail = path[max(0, end - 25) : end, scheme]
                ax.plot(tail[:, 0], tail[:, 1], color=color, linewidth=1)
                ax.plot(*tail[-1], "o", color=color, markersize=4)
            ax.plot(0, 0, "+", color="black")
            ax.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=[], yticks=[], aspect="equal")
            ax.set_title(panel_title(name), fontsize=6)
        fig.suptitle("red: both at once, blue: D, then G", fontsize=8)
        frames.append(fig)
    return frames
