"""Figures. The only module that imports matplotlib, an extra: ``pip install 'equipoise[lab]'``."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ValueError("figures need matplotlib: pip install 'equipoise[lab]'") from error

__all__ = ["COLORS", "Axes", "Figure", "Picture", "encode", "figure"]

Picture = Figure | Sequence[Figure]
"""A figure, or the figures of an animation."""

COLORS = ("#1f63b5", "#c83e28", "#2f8f4e", "#8a5cb8", "#c98a1b", "#3aa6a6", "#7a7a7a")
"""Colours that differ in lightness, so that red-green colour-blind readers can tell them apart."""

DPI = 110
FRAME_MS = 80


def figure(rows: int = 1, columns: int = 1, *, width: float = 4.0, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """A figure of rows x columns plots, `width` x `height` inches each -> (figure, its axes row by row)."""
    fig = Figure(figsize=(width * columns, height * rows), layout="constrained")
    made: Any = fig.subplots(rows, columns, squeeze=False)
    axes = list(made.flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_prop_cycle(color=COLORS)
    return fig, axes


def encode(picture: Picture) -> tuple[str, bytes]:
    """Encode a figure as ("png", bytes), an animation as ("gif", bytes)."""
    file = BytesIO()
    if isinstance(picture, Figure):
        Image.fromarray(pixels(picture)).save(file, format="PNG", optimize=True)
        return "png", file.getvalue()
    shown = [list(same) for _, same in groupby(picture, key=id)]  # a repeated figure becomes one long frame
    frames = [Image.fromarray(pixels(same[0])).quantize(128) for same in shown]
    durations = [FRAME_MS * len(same) for same in shown]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return "gif", file.getvalue()


def pixels(fig: Figure) -> NDArray[np.uint8]:
    """(H, W, 3)."""
    fig.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
