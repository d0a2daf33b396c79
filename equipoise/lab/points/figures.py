"""The pictures of `ring`, `grid` and `swiss_roll`: samples over D's value surface, and measures of all seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.core.plots import COLORS, Axes, Figure, Picture, figure

from ..base import Numbers
from .measures import Measure
from .surface import draw_surface, view_of

__all__ = ["draw"]

ROW = 5
"""Moments in a row."""
POINTS = "gold: data      black: generated"
SURFACE = f"{POINTS}      blue: where D says real      arrows: D's gradient"
HOLD = 10
"""Frames for which an animation stands still at its end."""


def draw(name: str, numbers: Numbers, measures: Mapping[str, Measure], compare: bool) -> dict[str, Picture]:
    """Draw the pictures of the experiment `name`, or of its comparison of settings."""
    if compare:
        return {
            f"{name}_compare": side_by_side(numbers),
            f"{name}_compare_seeds": all_seeds(numbers, measures),
        }
    return {
        name: over_time(numbers),
        f"{name}_measures": curves(numbers, measures),
        f"{name}_training": animation(numbers),
    }


# ---- points ----------------------------------------------------------------------------------------------


def scatter(ax: Axes, numbers: Numbers, moment: Mapping[str, Any], title: str) -> None:
    """Draw real points, the generated points of a moment, and D's value surface if it was kept."""
    left, right, bottom, top = view_of(numbers["real"])
    if "surface" in moment:
        draw_surface(ax, moment["surface"])
    ax.plot(*numbers["real"].T, ".", ms=4, mew=0, color=COLORS[4], zorder=2)
    if moment["samples"] is not None:
        ax.plot(*moment["samples"].T, ".", ms=2.5, mew=0, color="k", alpha=0.6, zorder=3)
    else:
        ax.text(0.5, 0.5, "diverged", transform=ax.transAxes, ha="center", color=COLORS[1])
    ax.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[], title=title)
    ax.spines[:].set(visible=True, color="0.8")
    ax.title.set_fontsize("medium")


def over_time(numbers: Numbers) -> Figure:
    """Draw a row of moments for each GAN."""
    runs = numbers["runs"]
    fig, axes = figure(len(runs), ROW, width=2.5, height=2.7)
    for row, run in enumerate(runs):
        moments = run["moments"]
        for column in range(ROW):
            moment = moments[round((column + 1) / ROW * (len(moments) - 1))]
            scatter(axes[row * ROW + column], numbers, moment, f"{run['setting']}, {moment['nimg'] / 1000:.0f} kimg")
    fig.supxlabel(SURFACE, fontsize="small")
    return fig


def animation(numbers: Numbers) -> list[Figure]:
    """Animate every moment, with the GANs side by side. A GAN that ended early stands still."""
    runs = numbers["runs"]
    frames = []
    for k in range(max(len(run["moments"]) for run in runs)):
        fig, axes = figure(1, len(runs), width=2.7, height=2.9)
        for ax, run in zip(axes, runs, strict=True):
            moment = run["moments"][min(k, len(run["moments"]) - 1)]
            scatter(ax, numbers, moment, f"{run['setting']}, {moment['nimg'] / 1000:.0f} kimg")
        frames += [fig, fig]
    return frames + HOLD * frames[-1:]


def side_by_side(numbers: Numbers) -> Figure:
    """Draw the final points of each setting, with the first seed."""
    first = {run["setting"]: run for run in reversed(numbers["runs"])}
    names = list(dict.fromkeys(run["setting"] for run in numbers["runs"]))
    fig, axes = figure(-(-len(names) // ROW), ROW, width=2.5, height=2.7)
    for ax, name in zip(axes, names, strict=False):
        scatter(ax, numbers, first[name]["moments"][-1], name)
    fig.supxlabel(POINTS, fontsize="small")
    return fig


# ---- measures --------------------------------------------------------------------------------------------


def curves(numbers: Numbers, measures: Mapping[str, Measure]) -> Figure:
    """Plot each measure over training, with the value of real points as a line."""
    fig, axes = figure(1, len(measures), width=3.4)
    for ax, (key, measure) in zip(axes, measures.items(), strict=True):
        for i, run in enumerate(numbers["runs"]):
            seen = [moment for moment in run["moments"] if moment["measures"][key] is not None]
            at = [moment["nimg"] / 1000 for moment in seen]
            ax.plot(at, [moment["measures"][key] for moment in seen], ".-", color=COLORS[i], label=run["setting"])
        ax.axhline(numbers["truth"][key], color="k", ls="--", lw=1, label="real points")
        ax.set(title=measure.title, xlabel="kimg seen by D", ylim=measure.limits)
    axes[-1].legend(frameon=False, fontsize="small")
    return fig


def all_seeds(numbers: Numbers, measures: Mapping[str, Measure]) -> Figure:
    """Plot each final measure: a dot for each seed, a row for each setting."""
    names = list(dict.fromkeys(run["setting"] for run in numbers["runs"]))[::-1]
    fig, axes = figure(1, len(measures), width=3.0, height=0.34 * len(names) + 0.9)
    for ax, (key, measure) in zip(axes, measures.items(), strict=True):
        for row, name in enumerate(names):
            finals = [run["moments"][-1]["measures"][key] for run in numbers["runs"] if run["setting"] == name]
            values = [value for value in finals if value is not None]
            ax.plot(values, [row] * len(values), "o", color=COLORS[0], alpha=0.6, ms=6, mew=0)
        ax.axvline(numbers["truth"][key], color="k", ls="--", lw=1)
        ax.set(title=measure.title, yticks=range(len(names)), yticklabels=names if ax is axes[0] else [])
        ax.set(xlim=measure.limits, ylim=(-0.6, len(names) - 0.4))
        ax.grid(axis="y", color="k", alpha=0.1)
    return fig
