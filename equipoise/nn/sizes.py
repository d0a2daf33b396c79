"""Sizes of maps and widths of layers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from equipoise.core.types import ImageSpec


class Start(NamedTuple):
    """The smallest map, and the number of times that it doubles to the image."""

    height: int
    width: int
    doublings: int

    @property
    def positions(self) -> int:
        return self.height * self.width

    @property
    def map(self) -> tuple[int, int]:
        """(H, W) of the smallest map."""
        return self.height, self.width


LONGEST = 15
"""Largest shorter side of the smallest map of a rectangle: 16:9 starts from 16x9."""


def start(spec: ImageSpec, name: str) -> Start:
    """The smallest map of a network that halves or doubles images: (H, W) = (h, w) · 2^n, n at least 1.

    Squares: h = w from 4 to 7. Rectangles: n is the largest for which h and w are whole numbers from 4 on; the smaller
    of the two is at most 15.

    Raises:
        ValueError: for any other shape.
    """
    if spec.square:
        base, halvings = sizes(spec, name)
        return Start(base, base, halvings)
    return rectangle(spec, name, least=1, most=spec.resolution.bit_length())


def rectangle(spec: ImageSpec, name: str, least: int, most: int) -> Start:
    """`start` for a rectangle, with `least` to `most` doublings."""
    begin = halved(spec.shape, most)
    if not fits(begin, least):
        near = " or ".join(f"'data.shape={shape}'" for shape in near_shapes(spec.shape, least, most))
        raise ValueError(
            f"{name} halves or doubles both sides of the image equally often, {least} times or more, from or to a map "
            f"whose smaller side has 4 to {LONGEST} pixels, and shape={spec.shape} (height, width) is not of this "
            f"kind. Resize the data ({near or 'smaller'}, or `equipoise data prepare SOURCE OUT "
            "--shape HEIGHT WIDTH`), or choose MLPGenerator and MLPDiscriminator, which make any shape."
        )
    return begin


def halved(shape: tuple[int, int], most: int) -> Start:
    """`shape`, halved while both sides are even and stay at least 4, at most `most` times."""
    (height, width), count = shape, 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 8 and count < most:
        height, width, count = height // 2, width // 2, count + 1
    return Start(height, width, count)


def fits(begin: Start, least: int) -> bool:
    return begin.doublings >= least and 4 <= min(begin.map) <= LONGEST


def near_shapes(shape: tuple[int, int], least: int, most: int) -> list[tuple[int, int]]:
    """The two rectangles nearest to `shape` that `rectangle` accepts, in the sum of the relative changes of sides."""
    near = {
        (max(height // step + i, 4) * step, max(width // step + j, 4) * step)
        for height, width in [shape]
        for step in (1 << n for n in range(least, most + 1))
        for i in (0, 1, 2)
        for j in (0, 1, 2)
    }
    possible = [(h, w) for h, w in near if h != w and fits(halved((h, w), most), least)]
    return sorted(possible, key=lambda s: (abs(s[0] / shape[0] - 1) + abs(s[1] / shape[1] - 1), s))[:2]


ABLE = "networks for rectangles (MLP, DCGAN, SNGAN, ResNet, SAGAN, BigGAN, StyleGAN2)"


def require_square(spec: ImageSpec, name: str) -> None:
    """Raise ValueError for rectangles."""
    if not spec.square:
        raise ValueError(
            f"{name} is for square images, and the data has shape={spec.shape} (height, width): give data.resolution "
            f"in place of data.shape, or take {ABLE}"
        )


def sizes(spec: ImageSpec, name: str) -> tuple[int, int]:
    """(base, halvings) for squares: resolution = base · 2^halvings, base from 4 to 7 and one halving at least.

    Raises:
        ValueError: for any other resolution, and for rectangles.
    """
    require_square(spec, name)
    base, halvings = spec.resolution, 0
    while base % 2 == 0 and base > 7:
        base, halvings = base // 2, halvings + 1
    if halvings == 0 or base > 7:
        near = " or ".join(f"data.resolution={size}" for size in neighbours(spec.resolution))
        raise ValueError(
            f"{name} halves or doubles the image between 4x4, 5x5, 6x6 or 7x7 and its full size, and {spec.resolution} "
            f"is none of these numbers times 2, 4, 8, ... Resize the data ({near}, or `equipoise data prepare SOURCE "
            "OUT --resolution SIZE`) or choose another architecture."
        )
    return base, halvings


def neighbours(resolution: int) -> list[int]:
    """The nearest sizes below and above that `sizes` accepts; the smallest it accepts is 8."""
    possible = [base << k for k in range(1, resolution.bit_length() + 1) for base in (4, 5, 6, 7)]  # ascending
    below = [size for size in possible if size < resolution]
    return [*below[-1:], next(size for size in possible if size > resolution)]


def require_power_of_two(spec: ImageSpec, name: str, doubled: str) -> None:
    """Raise ValueError unless images are squares of 16, 32, 64, ..., 1024 pixels.

    doubled: what the network `name` doubles up to the images' size, for the message.
    """
    require_square(spec, name)
    possible = [2**k for k in range(4, 11)]
    if spec.resolution not in possible:
        near = min(possible, key=lambda size: abs(size - spec.resolution))
        raise ValueError(
            f"{name} doubles {doubled} of the images, which must be 16, 32, 64, ..., 1024 pixels, and "
            f"{spec.resolution} is not. Resize the data (data.resolution={near}, or `equipoise data prepare SOURCE OUT "
            f"--resolution {near}`) or choose another architecture."
        )


def channels(width: int, layers: int) -> list[int]:
    """w, 2w, 4w, 8w, 8w, ...: from the largest map to the smallest."""
    return [width * min(2**i, 8) for i in range(layers)]


def split_z(z_dim: int, layers: int) -> list[int]:
    """Lengths of the chunks of z for the first layer and for each norm: equal, with the remainder in the first.

    Raises:
        ValueError: if z has fewer numbers than there are chunks.
    """
    length = z_dim // (layers + 1)
    if length == 0:
        raise ValueError(
            f"skip_z splits z into {layers + 1} chunks, for the first layer and for each of the {layers} norms at this "
            f"resolution, and z_dim={z_dim} is too short. Set z_dim={layers + 1} or more (a multiple of it splits "
            "evenly), or skip_z=false."
        )
    return [z_dim - layers * length, *[length] * layers]


Channels = Literal["doubling", "constant"]


def multiples(width: int, layers: int, channels: Channels, most: int) -> list[int]:
    """w, 2w, 4w, ..., from the largest map to the smallest, at most `most` times w; or w for every map."""
    return [width * (min(2**i, most) if channels == "doubling" else 1) for i in range(layers)]
