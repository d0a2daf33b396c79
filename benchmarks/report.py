"""Output of the benchmarks: the machine they ran on, Markdown tables, and plots drawn with Pillow alone."""

from __future__ import annotations

import dataclasses
import datetime
import math
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from equipoise.generate import grid

__all__ = ["SCALE", "Plot", "brief", "labelled_grid", "machine", "markdown", "spread"]

BLACK, GREY, LIGHT = (30, 30, 30), (120, 120, 120), (222, 222, 222)
SCALE = 2  # the picture is drawn larger and reduced: this smooths lines

Color = tuple[int, int, int]


def machine() -> dict[str, str | int]:
    """Facts to state with every number: date, commit (with a + if files were changed since), versions, processor."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else ""),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }


def git(*arguments: str) -> str:
    """Output of git in the project's directory; empty without git or outside a repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. Bars inside a cell are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation (over n - 1) in the number format `form`; one value stands alone, none gives a dash."""
    if not values:
        return "-"
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


def brief(value: Any) -> str:
    """A setting as written on the command line, without default values: ``[R1(every=1)]``."""
    if isinstance(value, tuple):
        return f"[{','.join(map(brief, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return str(value)
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    for name in list(fields):
        others = {other: fields[other] for other in fields if other != name}
        with suppress(TypeError, ValueError):  # the field is required
            fields = others if type(value)(**others) == value else fields
    given = ",".join(f"{name}={brief(field)}" for name, field in fields.items())
    return type(value).__name__ + (f"({given})" if given else "")


# ---- pictures --------------------------------------------------------------------------------------------


def labelled_grid(
    tiles: Sequence[tuple[str, NDArray[np.uint8] | None]], *, columns: int, across: int, shape: tuple[int, int]
) -> Image.Image:
    """Images of several sources side by side, each source a block with its name above it.

    tiles: name, and images (n, H, W, 1) or None for a source without images.
    columns: blocks in a row.  across: images in a row of a block.  shape: (height, width) of a block, in pixels.
    """
    height, width = shape
    pad, title = 12, 18
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    picture = Image.new("L", (pad + columns * (width + pad), rows * (height + title + pad)), 255)
    canvas = ImageDraw.Draw(picture)
    for i, (name, images) in enumerate(tiles):
        x, y = pad + i % columns * (width + pad), i // columns * (height + title + pad)
        canvas.text((x, y + title / 2 + 2), name, 30, ImageFont.load_default(11), "lm")
        block = np.zeros((height, width), np.uint8) if images is None else grid(images, across)[..., 0]
        picture.paste(Image.fromarray(block), (x, y + title))
    return picture


class Plot:
    """Curves in a box of a picture drawn `SCALE` times too large: x from 0 to `right`, y from 0 to `top`."""

    def __init__(self, canvas: ImageDraw.ImageDraw, left: int, title: str, xlabel: str, right: float, top: float):
        self.canvas, self.right, self.top = canvas, right, top
        self.box = (left, 50, left + 320, 290)
        self.text((left, 28), title, BLACK)
        for value in ticks(top):
            self.line([(0, value), (right, value)], LIGHT, 1)
            self.text((left - 8, self.at(0, value)[1]), f"{value:g}", GREY, "rm")
        for value in ticks(right):
            self.text((self.at(value, 0)[0], 300), f"{value:g}", GREY, "mm")
        self.text((left + 160, 320), xlabel, BLACK, "mm")

    def at(self, x: float, y: float) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return x0 + x / self.right * (x1 - x0), y1 - y / self.top * (y1 - y0)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: int = 2) -> None:
        pixels = [SCALE * v for point in points for v in self.at(*point)]
        self.canvas.line(pixels, color, SCALE * width)

    def text(self, at: tuple[float, float], text: str, color: Color, anchor: str = "la") -> None:
        font = ImageFont.load_default(13 * SCALE)
        self.canvas.text((SCALE * at[0], SCALE * at[1]), text, color, font, anchor)


def ticks(top: float) -> list[float]:
    """Some four or five round numbers from 0 to `top`."""
    magnitude = 10 ** math.floor(math.log10(top))
    step = next(step for share in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5) if top / (step := share * magnitude) <= 5)
    return [step * i for i in range(int(top / step + 1e-9) + 1)]
