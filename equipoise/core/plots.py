"""Figures. The only module that imports matplotlib, of the extra `lab`."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .extras import install

try:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise ValueError(f"figures need matplotlib: {install('lab')}") from error

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
    """Encode a figure as ("png", bytes), an animation as ("webp", bytes)."""
    if isinstance(picture, Figure):
        file = BytesIO()
        image = Image.fromarray(pixels(picture)).quantize(128, dither=Image.Dither.NONE)
        image.save(file, format="PNG", optimize=True)
        return "png", file.getvalue()
    shown = [list(same) for _, same in groupby(picture, key=id)]  # a figure that stays is one long frame
    frames = [Image.fromarray(pixels(same[0])) for same in shown]
    return "webp", film(frames, [FRAME_MS * len(same) for same in shown])


FILM_BYTES = 300_000
"""Size that an animation keeps to, at the cost of sharpness."""
SHARPNESS = ((1.0, 60), (1.0, 35), (0.75, 35), (0.75, 15), (0.5, 15))
"""Scale and WebP's quality, from sharp to blurred."""


def film(frames: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """An animated WebP of RGB frames, each shown for its milliseconds, in the sharpest way within `FILM_BYTES`."""
    for scale, quality in SHARPNESS:
        width, height = (round(side * scale) for side in frames[0].size)
        small = [frame.resize((width, height), Image.Resampling.LANCZOS) for frame in frames]
        file = BytesIO()
        small[0].save(
            file,
            format="WEBP",
            save_all=True,
            append_images=small[1:],
            duration=list(durations),
            loop=0,
            quality=quality,
        )
        if file.tell() <= FILM_BYTES:
            break
    return file.getvalue()


def pixels(fig: Figure) -> NDArray[np.uint8]:
    """(H, W, 3)."""
    fig.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
