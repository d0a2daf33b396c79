"""Do textures stick to pixels? The inputs of a StyleGAN3 and of a StyleGAN2 move sideways, and the images with them.

    python examples/translation_film.py runs/stylegan3 runs/stylegan2 --out film.webp

StyleGAN3's Fourier input moves exactly. StyleGAN2's constant input is moved by bilinear interpolation, its border
repeated. Left in the film: four images of StyleGAN3, and below each of them its middle row over the frames, from top to
bottom. Right: the same of StyleGAN2. What moves with the input is a slanted line there, what sticks to a pixel a
vertical one. Printed for each: the PSNR in dB between the middle of images whose input moved by whole pixels, and the
same part of images that did not move, shifted. The metric is `equipoise evaluate RUN --metrics eq_t`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from equipoise import Generator
from equipoise.data import to_uint8
from equipoise.generate import draw_latents
from equipoise.generate.frames import write_frames
from equipoise.nn import user_transform

IMAGES = 4
REACH = 0.125
"""Largest shift, in image widths."""


def shift_fourier(synthesis: Any, shift: float, start: Tensor) -> None:
    """Move the Fourier input of a StyleGAN3 by `shift` image widths to the right. start: the transform it has."""
    synthesis.input.transform.copy_(user_transform((shift, 0.0)).to(start) @ start)


def shift_constant(synthesis: Any, shift: float, start: Tensor) -> None:
    """Move the constant input of a StyleGAN2 by `shift` image widths to the right. start: (C, H, W), the constant."""
    move = torch.tensor([[1.0, 0.0, -2 * shift], [0.0, 1.0, 0.0]], device=start.device)
    places = F.affine_grid(move[None], [1, *start.shape], align_corners=False)
    synthesis.b4.const.copy_(F.grid_sample(start[None], places, padding_mode="border", align_corners=False)[0])


def images(generator: Generator, shifts: list[float]) -> NDArray[np.uint8]:
    """(frames, images, H, W, C)"""
    G: Any = generator.net
    fourier = hasattr(G.synthesis, "input")
    start = (G.synthesis.input.transform if fourier else G.synthesis.b4.const).clone()
    move: Callable[[Any, float, Tensor], None] = shift_fourier if fourier else shift_constant
    z = draw_latents(generator, IMAGES)
    frames = []
    for shift in shifts:
        move(G.synthesis, shift, start)
        frames.append(to_uint8(G.synthesis(G.mapping(z))).permute(0, 2, 3, 1).cpu().numpy())
    move(G.synthesis, 0.0, start)
    return np.stack(frames)


def psnr(still: NDArray[np.uint8], moved: NDArray[np.uint8], pixels: int) -> float:
    """In dB, of images (N, H, W, C) and the same moved by `pixels` to the right, without a quarter at each side."""
    a, b = (x.astype(float) for x in (still, moved))
    edge = a.shape[2] // 4
    error = (a[:, :, edge - pixels : -edge - pixels] - b[:, :, edge:-edge]) ** 2
    return 10 * math.log10(255**2 / error.mean())


def picture(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images side by side, (frames, 2 H, images · W, C): below each its middle row, a frame per line."""
    times, _, height = frames.shape[:3]
    lines = np.linspace(0, times - 1, height).round().astype(int)
    rows = frames[lines, :, height // 2].transpose(1, 0, 2, 3)  # (images, H, W, C)
    beside = [np.concatenate(list(x), axis=1) for x in (*frames, rows)]
    return np.stack([np.concatenate([frame, beside[-1]]) for frame in beside[:-1]])


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="of a StyleGAN3, then of a StyleGAN2")
    parser.add_argument("--out", type=Path, default=Path("film.webp"))
    parser.add_argument("--frames", type=int, default=40)
    args = parser.parse_args()
    shifts = [REACH * math.sin(2 * math.pi * i / args.frames) for i in range(args.frames)]
    films = []
    for run in args.runs:
        generator = Generator.from_pretrained(run)
        films.append(picture(images(generator, shifts)))
        pixels = max(round(REACH * generator.spec.resolution), 1)
        still, moved = images(generator, [0.0, pixels / generator.spec.resolution])
        print(f"{run}: moved by {pixels} pixels, PSNR {psnr(still, moved, pixels):.1f} dB")
    gap = np.full((*films[0].shape[:2], 8, films[0].shape[3]), 255, np.uint8)
    write_frames(np.concatenate([films[0], gap, films[1]], axis=2), args.out, fps=16)


if __name__ == "__main__":
    main()
