"""Closed loops through several images, in z or in the space of styles, as frames of a film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equipoise.core.latents import PATHS, lerp

from .generator import BATCH, Generator
from .style_space import images_of_styles, require_styles, styles
from .walks import Latent, between

__all__ = ["closed_loop", "eased", "periodic_spline"]

Space = Literal["z", "w"]
Path = Literal["cubic", "eased"]


def periodic_spline(keys: Tensor, t: Tensor) -> Tensor:
    """The closed cubic spline through `keys` (K, ...) at the times 0 ... K - 1, at times t (M,) -> (M, ...), float64.

    At time K it is back at key 0. Position, speed and acceleration are continuous everywhere. Between keys i and
    i + 1, with s = t - i: (1 - s) k_i + s k_(i+1) + ((1 - s)³ - (1 - s)) a_i / 6 + (s³ - s) a_(i+1) / 6. The
    accelerations a solve a_(i-1) + 4 a_i + a_(i+1) = 6 (k_(i-1) - 2 k_i + k_(i+1)).

    >>> periodic_spline(torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, 0.5, 1.0, 2.0])).flatten()
    tensor([0.0000, 0.5000, 1.0000, 0.0000], dtype=torch.float64)
    """
    points = keys.double().flatten(1)  # (K, F)
    num = len(points)
    neighbours = torch.eye(num, dtype=torch.float64).roll(1, 0) + torch.eye(num, dtype=torch.float64).roll(-1, 0)
    identity = torch.eye(num, dtype=torch.float64)
    bends = torch.linalg.solve(neighbours + 4 * identity, 6 * (neighbours @ points - 2 * points))
    i, following, s = segments(num, t)
    s = s[:, None]
    line = (1 - s) * points[i] + s * points[following]
    curve = ((1 - s) ** 3 - (1 - s)) * bends[i] / 6 + (s**3 - s) * bends[following] / 6
    path: Tensor = line + curve
    return path.view(len(t), *keys.shape[1:])


def eased(s: Tensor) -> Tensor:
    """3 s² - 2 s³: from 0 to 1, at rest at both ends."""
    return s.square() * (3 - 2 * s)


def segments(num: int, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The keys before and after each time of a loop, and the time since the key before."""
    i = t.floor().long()
    return i % num, (i + 1) % num, t.double() - i


def closed_loop(
    generator: Generator,
    points: Sequence[Latent],
    frames: int,
    *,
    space: Space | None = None,
    path: Path | None = None,
) -> NDArray[np.uint8]:
    """A loop through `points` and back to the first: (len(points)·frames, H, W, C).

    Frame i·frames is the image of point i. The last frame lies one step before the first.

    frames: frames from one point to the next.
    space: "w", the styles, or "z"; None: w where the generator has it.
    path: "cubic", a closed spline, whose speed does not break at a point, or "eased", straight in w and along the
        prior's path in z, at rest at every point. None: cubic in w, eased in z. A cubic path in z keeps the norm that
        its neighbours have.

    If classes differ, a loop in w mixes their styles, and a loop in z mixes the network's vectors for them.

    Raises:
        ValueError: for fewer than 2 points, frames below 1, an unknown space or path, w of a generator without styles,
            or a cubic path in z of a uniform prior, which the path would leave.

    >>> film = closed_loop(generator, [latent(generator, i) for i in (3, 8, 5)], frames=30)
    """
    space = space or ("w" if generator.config.styled else "z")
    path = path or ("cubic" if space == "w" else "eased")
    if len(points) < 2 or frames < 1:
        raise ValueError(
            f"a loop goes through at least 2 images with at least 1 frame each, got {len(points)} and frames={frames}"
        )
    for name, given, choices in (("space", space, ("w", "z")), ("path", path, ("cubic", "eased"))):
        if given not in choices:
            raise ValueError(f"there is no {name} {given!r}: choose {' or '.join(choices)}")
    t = torch.arange(len(points) * frames, dtype=torch.float64) / frames
    return loop_in_w(generator, points, t, path) if space == "w" else loop_in_z(generator, points, t, path)


def loop_in_w(generator: Generator, points: Sequence[Latent], t: Tensor, path: Path) -> NDArray[np.uint8]:
    require_styles(generator, "a loop in w")
    y = None if points[0].y is None else torch.tensor([point.y for point in points])
    keys = styles(generator, torch.stack([point.z for point in points]), y)
    parts = []
    for part in t.split(BATCH):
        if path == "cubic":
            ws = periodic_spline(keys, part)
        else:
            i, following, s = segments(len(points), part)
            ws = lerp(keys[i], keys[following], eased(s)[:, None])
        parts.append(images_of_styles(generator, ws.to(keys.dtype)))
    return np.concatenate(parts)


def loop_in_z(generator: Generator, points: Sequence[Latent], t: Tensor, path: Path) -> NDArray[np.uint8]:
    prior = generator.config.prior
    if path == "cubic" and prior.path == "linear":
        raise ValueError(f"a cubic path leaves the values that {prior.law} has: choose path=eased")
    keys = torch.stack([point.z for point in points])
    i, following, s = segments(len(points), t)
    if path == "cubic":
        norms = keys.double().norm(dim=1)
        z = periodic_spline(keys, t)
        z = (z * (lerp(norms[i, None], norms[following, None], s) / z.norm(dim=1, keepdim=True))).to(keys.dtype)
    else:
        z = PATHS[prior.path](keys[i], keys[following], eased(s))
    parts = []
    for rows in torch.arange(len(t)).split(BATCH):
        y, other = (
            None if points[0].y is None else torch.tensor([points[int(k)].y for k in each[rows]])
            for each in (i, following)
        )
        parts.append(between(generator, z[rows], y, other, eased(s[rows])))
    return np.concatenate(parts)
