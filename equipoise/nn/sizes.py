"""Sizes of maps and widths of layers."""

from __future__ import annotations

from typing import Literal

from equipoise.core.types import ImageSpec


def sizes(spec: ImageSpec, name: str) -> tuple[int, int]:
    """(base, halvings): resolution = base · 2^halvings, base from 4 to 7 and one halving at least.

    Raises:
        ValueError: for any other resolution.
    """
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
    """Raise ValueError unless the resolution is 16, 32, 64, ..., 1024.

    doubled: what the network `name` doubles up to the images' size, for the message.
    """
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
