"""Random geometric transforms, as one 3x3 matrix per image (Karras et al. 2020, app. B).

A matrix maps each point of the result to its source in the original. Points are in pixels from the centre of the image,
x to the right and y down. So the matrices of transforms applied first to last multiply left to right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from .draws import Draws
from .resampling import move, resample

__all__ = ["BLIT", "GEOMETRIC", "Transform", "compose", "warp"]

Transform = Callable[[Draws], Tensor]
"""-> (N, 3, 3)."""


def warp(x: Tensor, draws: Draws, *, blit: bool, geometric: bool) -> Tensor:
    """Transform images by fresh draws of `BLIT`, `GEOMETRIC` or both. Images moved only by `BLIT` are not resampled."""
    blits = compose(BLIT if blit else (), draws)
    moved = move(x, blits) if blit else x
    if not geometric:
        return moved
    general = compose(GEOMETRIC, draws)
    neutral = (general == torch.eye(3, device=x.device)).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(neutral, moved, resample(x, blits @ general))


def compose(transforms: Sequence[Transform], draws: Draws) -> Tensor:
    """Fresh draws of `transforms`, applied first to last, as one matrix per image -> (N, 3, 3)."""
    identity = torch.eye(3, device=draws.device, dtype=draws.dtype).expand(draws.n, 3, 3)
    return reduce(torch.matmul, (transform(draws) for transform in transforms), identity)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack((x, y, torch.ones_like(x)), 1).diag_embed()


def rotation(cos: Tensor, sin: Tensor) -> Tensor:
    matrix = scaling(cos, cos)
    matrix[:, 0, 1], matrix[:, 1, 0] = -sin, sin
    return matrix


def translation(x: Tensor, y: Tensor) -> Tensor:
    matrix = scaling(torch.ones_like(x), torch.ones_like(x))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


# ---- pixel blitting: pixels move, and keep their values ----------------------------------------------------


def x_flip(draws: Draws) -> Tensor:
    """Swap left and right in half of the images."""
    side = draws.fire(1 - 2 * draws.integer(2), 1)
    return scaling(side, torch.ones_like(side))


def rotate90(draws: Draws) -> Tensor:
    """Rotate by 0, 90, 180 or 270 degrees; by 0 or 180 if images are not square."""
    turns = draws.integer(4) if draws.height == draws.width else 2 * draws.integer(2)
    angle = draws.fire(turns, 0) * (math.pi / 2)
    return rotation(angle.cos().round(), angle.sin().round())


def translate_pixels(draws: Draws) -> Tensor:
    """Translate by U(-1/8, 1/8) of the size along each axis, rounded to pixels."""
    x, y = draws.fire(draws.uniform(-0.125, 0.125, 2), 0).unbind(1)
    return translation((x * draws.width).round(), (y * draws.height).round())


BLIT: Sequence[Transform] = (x_flip, rotate90, translate_pixels)


# ---- general transforms ------------------------------------------------------------------------------------


def scale(draws: Draws) -> Tensor:
    """Enlarge by a factor 2^N(0, 0.2²)."""
    factor = draws.fire(draws.lognormal(0.2), 1)
    return scaling(1 / factor, 1 / factor)


def rotate(draws: Draws) -> Tensor:
    """Rotate by U(-π, π). It runs before and after `stretch`; with probability p at least one of the two fires."""
    angle = draws.fire(draws.uniform(-math.pi, math.pi), 0, p=1 - (1 - draws.p).clamp_min(0).sqrt())
    return rotation(angle.cos(), angle.sin())


def stretch(draws: Draws) -> Tensor:
    """Widen by a factor 2^N(0, 0.2²), and shrink in height by the same factor."""
    factor = draws.fire(draws.lognormal(0.2), 1)
    return scaling(1 / factor, factor)


def translate(draws: Draws) -> Tensor:
    """Translate by N(0, (1/8)²) of the size along each axis."""
    x, y = draws.fire(draws.normal(0.125, 2), 0).unbind(1)
    return translation(x * draws.width, y * draws.height)


GEOMETRIC: Sequence[Transform] = (scale, rotate, stretch, rotate, translate)
