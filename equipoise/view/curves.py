"""Curves as SVG, for a page without scripts. Colours come from the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Band", "Chart", "Points", "chart"]

Points = Sequence[tuple[float, float]]
"""(x, y) of a curve, x increasing."""

WIDTH, HEIGHT = 560, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24
MOST = 150
"""Most stretches of a curve. Longer curves show the lowest and the highest value of each stretch."""
COLOURS = 6


class Band(NamedTuple):
    """Values between `low` and `high`, with a few words. low = high: one value."""

    low: float
    high: float
    text: str


class Chart(NamedTuple):
    """Curves by name, over kimg, and the band in which they should be, or None."""

    curves: Mapping[str, Points]
    band: Band | None = None


class Axis(NamedTuple):
    """A scale from values to pixels. low, high: values at its ends; logarithms if `logarithmic`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value, at an end if it is beyond."""
        position = math.log10(max(value, 1e-300)) if self.logarithmic else value
        share = (position - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the axis, about four."""
        if self.logarithmic:
            decades = max(1, math.ceil((self.high - self.low) / 4))
            return [10.0**power for power in range(math.ceil(self.low), math.floor(self.high) + 1, decades)]
        raw = (self.high - self.low) / 4
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(drawn: Chart) -> str:
    """The chart as an SVG element, with a legend if it has several curves."""
    values = [y for points in drawn.curves.values() for _, y in points]
    x = Axis(0, max(points[-1][0] for points in drawn.curves.values()) or 1, LEFT, WIDTH - RIGHT)
    y = vertical(values, drawn.band)
    parts = [*shaded(drawn.band, y), *grid_lines(x, y)]
    for i, (name, points) in enumerate(drawn.curves.items()):
        path = " ".join(f"{x.at(kimg):.0f},{y.at(value):.1f}" for kimg, value in thinned(points))
        title = f"<title>{html.escape(name)}</title>"
        dot = f'<circle class="c{i % COLOURS}" cx="{x.at(points[-1][0]):.0f}" cy="{y.at(points[-1][1]):.1f}" r="2.5"/>'
        parts.append(f'<polyline class="c{i % COLOURS}" points="{path}">{title}</polyline>{dot}')
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
    return svg + legend(drawn.curves)


def legend(curves: Mapping[str, Points]) -> str:
    """Names of the curves, each with its last value."""
    items = (
        f'<span class="c{i % COLOURS}"><b>{html.escape(name)}</b> {points[-1][1]:.4g}</span>'
        for i, (name, points) in enumerate(curves.items())
    )
    return f'<p class="legend">{" ".join(items)}</p>'


def vertical(values: Sequence[float], band: Band | None) -> Axis:
    """The axis of values. Logarithmic for positive values over two decades; without outliers otherwise."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 100:
        return Axis(math.log10(low), math.log10(high), HEIGHT - BOTTOM, TOP, logarithmic=True)
    ordered = sorted(values)
    near, far = (ordered[round(share * (len(ordered) - 1))] for share in (0.02, 0.98))
    if far > near and high - low > 6 * (far - near):  # a few outliers would flatten the rest
        low, high = max(low, near - (far - near)), min(high, far + (far - near))
    if band is not None:
        low, high = min(low, band.low), max(high, band.high)
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.1
    return Axis(low - margin, high + margin, HEIGHT - BOTTOM, TOP)


def shaded(band: Band | None, y: Axis) -> list[str]:
    """The band, or a dashed line for one value, with its words."""
    if band is None:
        return []
    top, bottom, right = y.at(band.high), y.at(band.low), WIDTH - RIGHT
    shape = (
        f'<line class="level" x1="{LEFT}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}"/>'
        if band.low == band.high
        else f'<rect class="band" x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" height="{bottom - top:.1f}"/>'
    )
    place = top - 4 if top > TOP + 12 else top + 12
    return [f'{shape}<text class="words" x="{right - 2}" y="{place:.1f}">{html.escape(band.text)}</text>']


def grid_lines(x: Axis, y: Axis) -> list[str]:
    """Ticks of both axes, with numbers."""
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(v):.1f}" y2="{y.at(v):.1f}"/>'
        f'<text class="y" x="{LEFT - 6}" y="{y.at(v) + 4:.1f}">{number(v)}</text>'
        for v in y.ticks()
    ]
    parts += [f'<text class="x" x="{x.at(v):.0f}" y="{HEIGHT - 8}">{number(v)}</text>' for v in x.ticks()]
    return parts


def number(value: float) -> str:
    """A tick's number in few letters: 20000 is 20k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.6g}k" if abs(value) < 1e7 else f"{value:.0e}"
    return f"{value:.4g}"


def thinned(points: Points) -> Points:
    """At most 2 · `MOST` points: the lowest and the highest of each stretch, in order."""
    if len(points) <= 2 * MOST:
        return points
    kept = []
    for i in range(MOST):
        part = points[i * len(points) // MOST : (i + 1) * len(points) // MOST]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept
