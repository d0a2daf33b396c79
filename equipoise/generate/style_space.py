"""The space of styles of a style-based generator: truncation, images of styles, and mixed styles.

Such a network has G.mapping(z, y) -> ws (N, num_ws, w_dim), a style for each layer, and G.synthesis(ws) -> images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .generator import BATCH, Generator, pixels_of
from .walks import latent

__all__ = ["TruncatedInW", "images_of_styles", "mixing_grid", "require_styles", "styles", "truncated_in_w"]


def require_styles(generator: Generator, what: str) -> None:
    """Raise ValueError unless the generator has a space of styles. what: the subject of the message."""
    if not generator.config.styled:
        raise ValueError(
            f"{what} needs a generator with a space of styles, such as StyleGAN2's, and this one is "
            f"{generator.config!r}, which has z alone: give the run of a style-based generator"
        )


def number_of_layers(net: Any) -> int:
    """Number of layers that read a style."""
    return int(net.num_ws)


# ---- truncation ------------------------------------------------------------------------------------------


class TruncatedMapping(nn.Module):
    """A mapping network whose styles are always truncated."""

    def __init__(self, mapping: nn.Module, psi: float, cutoff: int | None):
        super().__init__()
        self.mapping, self.psi, self.cutoff = mapping, psi, cutoff

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        ws: Tensor = self.mapping(z, c, truncation_psi=self.psi, truncation_cutoff=self.cutoff)
        return ws


class TruncatedInW(nn.Module):
    """A style-based generator in eval mode, with `TruncatedMapping` for its mapping. The weights are shared."""

    def __init__(self, net: nn.Module, psi: float, cutoff: int | None):
        super().__init__()
        self.num_ws = number_of_layers(net)
        self.mapping = TruncatedMapping(net.get_submodule("mapping"), psi, cutoff)
        self.synthesis = net.get_submodule("synthesis")

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x: Tensor = self.synthesis(self.mapping(z, y), noise_mode="const")
        return x


def truncated_in_w(generator: Generator, psi: float, cutoff: int | None = None) -> Generator:
    """A copy with truncated styles: w_avg + ψ (w - w_avg) in the layers below `cutoff` (Karras et al. 2019, app. B).

    psi: ψ. 1 leaves the styles as they are, 0 gives the average image, a negative ψ its other side.
    cutoff: number of layers whose style is truncated, the coarsest first; None: all.

    Raises:
        ValueError: for a generator without styles, or truncated so already; for ψ that is not finite, or a cutoff that
            is not among its layers.
    """
    require_styles(generator, "truncation in w")
    if not math.isfinite(psi):
        raise ValueError(f"expected a finite psi, such as 0.7 (1: no truncation), got {psi}")
    num_ws = number_of_layers(generator.net)
    if cutoff is not None and not 1 <= cutoff <= num_ws:
        raise ValueError(
            f"this generator has styles for {num_ws} layers, and cutoff={cutoff}: give a cutoff from 1 to {num_ws}"
        )
    if generator.psi != 1:
        raise ValueError(
            f"the styles of this generator are truncated already, with psi={generator.psi:g}: start from the "
            "untruncated generator"
        )
    return dataclasses.replace(generator, net=TruncatedInW(generator.net, psi, cutoff).eval(), psi=psi)


# ---- styles and their images -----------------------------------------------------------------------------


@torch.no_grad()
def styles(generator: Generator, z: Tensor, y: Tensor | None) -> Tensor:
    """Z (n, z_dim), y (n,), or weights of the classes (n, classes), or None -> ws (n, num_ws, w_dim), on the CPU."""
    require_styles(generator, "a style")
    device, mapping = next(generator.net.parameters()).device, generator.net.get_submodule("mapping")
    parts = [
        mapping(z[rows].to(device), None if y is None else y[rows].to(device)).cpu()
        for rows in torch.arange(len(z)).split(BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def images_of_styles(generator: Generator, ws: Tensor) -> NDArray[np.uint8]:
    """Ws (n, num_ws, w_dim), on any device -> images (n, H, W, C). Stored noise, so equal styles give equal images."""
    require_styles(generator, "a style")
    device, synthesis = next(generator.net.parameters()).device, generator.net.get_submodule("synthesis")
    parts = [pixels_of(synthesis(part.to(device), noise_mode="const")) for part in ws.split(BATCH)]
    return np.concatenate(parts)


def mixing_grid(
    generator: Generator,
    rows: Sequence[int],
    columns: Sequence[int],
    layers: Sequence[int],
    *,
    seed: int = 0,
    label: int | None = None,
) -> tuple[NDArray[np.uint8], int]:
    """Mixed styles as a picture (Karras et al. 2019, fig. 3): images (rows·columns, H, W, C), and how many columns.

    The image in row r and column c has row r's styles in `layers`, and column c's in all others. The first column
    shows the images of the rows, the first row the images of the columns; the corner is black.

    rows, columns: indices of images of `seed`.
    layers: layers from 0, the coarsest; with the first layers, rows give pose and shape, columns texture and colour.
    label: class of all images; None: each image's own.

    Raises:
        ValueError: for a generator without styles, an empty list, or a layer that does not exist.
    """
    require_styles(generator, "mixing styles")
    num_ws = number_of_layers(generator.net)
    if not rows or not columns or not layers:
        raise ValueError(f"expected at least one row, column and layer, got {rows!r}, {columns!r} and {layers!r}")
    if wrong := [layer for layer in layers if not 0 <= layer < num_ws]:
        raise ValueError(f"there is no layer {wrong[0]}: this generator has styles for layers 0 to {num_ws - 1}")
    coarse, fine = (of_images(generator, indices, seed, label) for indices in (rows, columns))
    mixed = fine.repeat(len(rows), 1, 1)  # (rows·columns, num_ws, w_dim)
    mixed[:, list(layers)] = coarse.repeat_interleave(len(columns), 0)[:, list(layers)]
    first, left, inside = (images_of_styles(generator, ws) for ws in (fine, coarse, mixed))
    full = np.zeros((len(rows) + 1, len(columns) + 1, *first.shape[1:]), np.uint8)
    full[0, 1:], full[1:, 0], full[1:, 1:] = first, left, inside.reshape(len(rows), len(columns), *first.shape[1:])
    return full.reshape(-1, *first.shape[1:]), len(columns) + 1


def of_images(generator: Generator, indices: Sequence[int], seed: int, label: int | None) -> Tensor:
    """Styles (n, num_ws, w_dim) of the images `indices`."""
    points = [latent(generator, index, seed=seed, label=label) for index in indices]
    y = [point.y for point in points if point.y is not None]
    return styles(generator, torch.stack([point.z for point in points]), torch.tensor(y) if y else None)
