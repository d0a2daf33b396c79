"""Draw a figure of the documentation: the p from which on random rotations leak into G's images.

    python scripts/leak_figure.py docs/img/leak_rotations.png

D sees images rotated by a multiple of 90 degrees with probability p. If G matched what D sees, would its own images
have to be upright? The shares of the four orientations that D sees are a matrix times the shares that G makes,

    M = (1 - p) I + p mean_k R^k,    R the cyclic shift of four,

so G's shares follow from D's as long as M is invertible. The smallest eigenvalue of M is the fraction that is left of a
difference between two generators (Karras et al. 2020, sec. 2.2 and app. C). The dots test this: the library's
`rotate90` rotates 1000 images, and their orientations are counted and multiplied by the inverse of M.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from equipoise.augment.affine import compose, rotate90
from equipoise.augment.draws import Draws
from equipoise.augment.resampling import move

Array = NDArray[np.float64]

ANY_OF_FOUR = (1 / 4, 1 / 4, 1 / 4, 1 / 4)
NEVER_UPRIGHT = (0, 1 / 3, 1 / 3, 1 / 3)
UPRIGHT = np.array([0.7, 0.1, 0.1, 0.1])
"""G's images in the experiment: the shares turned by 0, 90, 180 and 270 degrees."""


def mixing(p: float, turns: Sequence[float]) -> Array:
    """Matrix (4, 4): shares of orientations before -> after turns by k · 90 degrees with probability p · turns[k]."""
    outcome = p * np.array(turns)
    outcome[0] += 1 - p
    return np.array([[outcome[(after - before) % 4] for before in range(4)] for after in range(4)])


def smallest_eigenvalue(p: float, turns: Sequence[float]) -> float:
    """The smallest modulus of an eigenvalue. M is circulant: its eigenvalues are the Fourier transform of a column."""
    return float(np.abs(np.fft.fft(mixing(p, turns)[:, 0])).min())


def recovered(p: float, repeats: int, images: int) -> Array:
    """Estimates (repeats, 4) of the shares UPRIGHT, each from the orientations of `images` images that D sees."""
    made = np.random.default_rng(0).choice(4, size=repeats * images, p=UPRIGHT)
    patterns = torch.stack([torch.tensor([[1.0, 0.0], [0.0, 0.0]]).rot90(k) for k in range(4)])
    x = patterns[torch.from_numpy(made)].unsqueeze(1)
    seen = move(x, compose([rotate90], Draws(torch.tensor(p), x)))[:, 0]
    orientation = (seen.unsqueeze(1) == patterns).flatten(2).all(2).float().argmax(1).numpy().reshape(repeats, images)
    shares = np.stack([(orientation == k).mean(1) for k in range(4)], 1)
    return np.linalg.solve(mixing(p, ANY_OF_FOUR), shares.T).T


# ---- the picture ---------------------------------------------------------------------------------------------------

BLACK, GREY, LIGHT, BLUE, RED = (30, 30, 30), (120, 120, 120), (222, 222, 222), (31, 99, 181), (200, 62, 40)
SCALE = 2  # the picture is drawn larger and reduced: this smooths lines


class Axes:
    """A plot of p in [0, 1] against a number in [0, top], in a box of a picture."""

    def __init__(self, canvas: ImageDraw.ImageDraw, left: int, title: str, top: float, ticks: Sequence[float]):
        self.canvas, self.left, self.top = canvas, left, top
        self.box = (left, 50, left + 320, 290)
        self.text((left, 28), title, BLACK)
        for value in ticks:
            self.line([(0, value), (1, value)], LIGHT, 1)
            self.text((left - 8, self.at(0, value)[1]), f"{value:g}", GREY, "rm")
        for p in (0, 0.2, 0.4, 0.6, 0.8, 1):
            self.text((self.at(p, 0)[0], 300), f"{p:g}", GREY, "mm")
        self.text((left + 160, 320), "p", BLACK, "mm")
        self.line([(0.8, 0), (0.8, top)], GREY, 1)

    def at(self, p: float, value: float) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return x0 + p * (x1 - x0), y1 - value / self.top * (y1 - y0)

    def line(self, points: Sequence[tuple[float, float]], color: tuple[int, int, int], width: int = 2) -> None:
        pixels = [tuple(SCALE * v for v in self.at(*point)) for point in points]
        self.canvas.line([v for pixel in pixels for v in pixel], color, SCALE * width)

    def dots(self, points: Sequence[tuple[float, float]], color: tuple[int, int, int]) -> None:
        for point in points:
            x, y = self.at(*point)
            self.canvas.ellipse([SCALE * v for v in (x - 3.5, y - 3.5, x + 3.5, y + 3.5)], color)

    def text(self, at: tuple[float, float], text: str, color: tuple[int, int, int], anchor: str = "la") -> None:
        font = ImageFont.load_default(13 * SCALE)
        self.canvas.text((SCALE * at[0], SCALE * at[1]), text, color, font, anchor)


def curve(function: Callable[[float], float], stop: float = 1.0) -> list[tuple[float, float]]:
    return [(p, function(p)) for p in np.linspace(0, stop, 401).tolist()]


def draw() -> Image.Image:
    image = Image.new("RGB", (SCALE * 800, SCALE * 340), "white")
    canvas = ImageDraw.Draw(image)

    left = Axes(canvas, 50, "what is left of a difference: smallest |eigenvalue|", 1, (0, 0.2, 0.4, 0.6, 0.8, 1))
    left.line(curve(lambda p: smallest_eigenvalue(p, NEVER_UPRIGHT)), RED)
    left.line(curve(lambda p: smallest_eigenvalue(p, ANY_OF_FOUR)), BLUE)
    left.text((128, 62), "0, 90, 180 or 270° (ADA)", BLUE)
    left.text((128, 80), "90, 180 or 270°, never 0", RED)
    left.text((left.at(0.8, 0)[0] - 6, 118), "p = 0.8", GREY, "ra")

    right = Axes(canvas, 450, "error of the shares recovered from 1000 images", 0.25, (0, 0.05, 0.1, 0.15, 0.2, 0.25))
    points = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
    torch.manual_seed(0)
    measured = [float((recovered(p, 200, 1000) - UPRIGHT).std()) for p in points]
    right.line(curve(predicted_error, stop=0.93), BLUE)
    right.dots(list(zip(points, measured, strict=True)), BLACK)
    right.text((466, 62), "line: predicted", BLUE)
    right.text((466, 80), "dots: measured with ADA's rotations", BLACK)
    return image.resize((800, 340), Image.Resampling.LANCZOS)


def predicted_error(p: float, images: int = 1000) -> float:
    """Root mean square error of the four shares: noise of counting `images` images, passed through the inverse of M."""
    seen = mixing(p, ANY_OF_FOUR) @ UPRIGHT
    noise = (np.diag(seen) - np.outer(seen, seen)) / images  # multinomial
    inverse = np.linalg.inv(mixing(p, ANY_OF_FOUR))
    return float(np.sqrt(np.trace(inverse @ noise @ inverse.T) / 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a PNG file")
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    draw().quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    main()
