"""Perceptual path length: how evenly images change along a path of latents (Karras et al. 2019, sec. 4.1)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from equipoise.compute.devices import wide
from equipoise.compute.precision import float32_products
from equipoise.core.latents import PATHS, lerp
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import component

from .base import Array, AskedGenerator, Better, Distance, Found, Number, Samples
from .of_generator import OfGenerator, drawn, mapped, redraw_noise, synthesised

__all__ = ["path_lengths", "trimmed_mean"]

Sampling = Literal["end", "full"]
Kind = Literal["features", "pixels"]
Share = Annotated[float, Field(ge=0, lt=0.5)]


def path_lengths(
    draw: Callable[[Tensor], Tensor],
    path: Callable[[Tensor], Tensor],
    features: Callable[[Tensor], Tensor],
    t: Tensor,
    epsilon: float,
) -> Tensor:
    """d(G(p(t)), G(p(t + ε))) / ε², d(x, x') = ‖φ(x) - φ(x')‖²: (N,) float64 (Karras et al. 2019, eq. 2 and 3).

    draw: G, points (2N, ...) -> images (2N, C, H, W).
    path: p, places (N,) -> points (N, ...).
    features: φ, images -> (2N, F).
    t: places (N,) between 0 and 1, float64.
    """
    x = draw(torch.cat([path(t), path(t + epsilon)]))
    first, second = wide(features(x)).chunk(2)
    return (first - second).square().sum(1) / epsilon**2


def trimmed_mean(values: Array, share: float) -> tuple[float, float]:
    """Mean of the values between two quantiles, at `share` and 1 - `share`, and its standard error.

    The quantiles are values themselves, and count: the next lower one at `share`, the next higher one at 1 - `share`.
    """
    low = np.quantile(values, share, method="lower")
    high = np.quantile(values, 1 - share, method="higher")
    kept = values[(low <= values) & (values <= high)]
    error = kept.std(ddof=1) / math.sqrt(len(kept)) if len(kept) > 1 else math.nan
    return float(kept.mean()), float(error)


def pixels(x: Tensor) -> Tensor:
    """The images as they are: (N, C, H, W) -> (N, C·H·W) float64."""
    return wide(x).flatten(1)


class Places:
    """Paths between pairs of latents, a batch at a time.

    G: the generator.  num, seed: of the pairs.  full: whether places are drawn from U(0, 1), or are all 0.
    """

    def __init__(self, G: AskedGenerator, num: int, seed: int, *, full: bool):
        self.net, self.along = G.network(), PATHS[G.path]
        self.device = next(self.net.parameters()).device
        z, y = G.latents(2 * num, seed)
        self.ends, self.y = (z[:num], z[num:]), None if y is None else y[:num]  # one class along a path
        self.t = torch.zeros(num, dtype=torch.float64)
        if full:
            self.t.uniform_(generator=stream(seed, Purpose.METRIC_MOTIONS))

    def rows(self, rows: slice) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Both ends (n, z_dim), classes (n,) or None, places (n,)."""
        a, b = (end[rows].to(self.device) for end in self.ends)
        return a, b, None if self.y is None else self.y[rows].to(self.device), self.t[rows].to(self.device)


@torch.no_grad()
def mean_length(settings: MeanPathLength, G: AskedGenerator, distance: Distance | None, seed: int) -> Number:
    """The mean length over `settings.num` paths, without `settings.trim` at either end."""
    places = Places(G, settings.num, seed, full=settings.sampling == "full")
    features = pixels if distance is None else distance.of_floats
    parts = []
    with float32_products("ieee"):  # the two images of a path differ by far less than TF32 rounds
        for number, start in enumerate(range(0, settings.num, settings.batch)):
            redraw_noise(places.net, seed, number)
            rows = slice(start, start + settings.batch)
            parts.append(settings.lengths(places, rows, features, settings.epsilon).cpu())
    mean, error = trimmed_mean(torch.cat(parts).numpy(), settings.trim)
    return Number(mean, None if math.isnan(error) else error)


@component
class MeanPathLength(OfGenerator[AskedGenerator, Distance | None]):
    """Mean of d(x(t), x(t + ε)) / ε² over paths, d(x, x') = ‖φ(x) - φ(x')‖².

    The name of φ ends the name of the number.
    """

    spread: ClassVar[str | None] = "standard error over paths"
    least: ClassVar[tuple[int, int]] = (1, 1)

    num: int = Field(default=50_000, ge=1)
    batch: int = Field(default=16, ge=1)
    epsilon: float = Field(default=1e-4, gt=0, le=1)
    sampling: Sampling = "end"
    distance: Kind = "features"
    trim: Share = 0.01

    @abstractmethod
    def lengths(self, places: Places, rows: slice, features: Callable[[Tensor], Tensor], epsilon: float) -> Tensor:
        """D / ε² on some of the paths, (n,) float64."""

    def suffix(self, features: str) -> str:
        return f"_{'pixels' if self.distance == 'pixels' else features}"

    def ask(self, fake: Samples, real: Samples) -> tuple[AskedGenerator, Distance | None]:  # noqa: ARG002
        return fake.generator, None if self.distance == "pixels" else fake.network

    def find(self, seed: int, G: AskedGenerator, distance: Distance | None) -> Found:
        (number,) = self.better
        length = mean_length(self, G, distance, seed)
        return Found({number + self.suffix("" if distance is None else distance.name): length}, {})


@component
class PathLengthInW(MeanPathLength):
    """Mean of d(G(w(t)), G(w(t + ε))) / ε² on straight paths between styles (Karras et al. 2019, eq. 3).

    d(x, x') = ‖φ(x) - φ(x')‖². φ is the evaluation's feature network, and its name ends the name of the number:
    `ppl2_w_inception`. Published values take LPIPS on VGG-16 as d, have another scale, and do not compare with these.
    Images are neither clipped, rounded nor cropped; styles are not truncated.

    num: paths.  batch: paths at a time; a path's two images share the stored noise.
    epsilon: ε, a share of the path.
    sampling: "end" takes t = 0, where w comes from the mapping network; "full" draws t from U(0, 1).
    distance: "features", or "pixels" for φ(x) = x, in [-1, 1].
    trim: share of the shortest and of the longest paths that the mean leaves out.
    """

    name: ClassVar[str] = "ppl_w"
    better: ClassVar[Mapping[str, Better]] = {"ppl2_w": "lower"}

    def lengths(self, places: Places, rows: slice, features: Callable[[Tensor], Tensor], epsilon: float) -> Tensor:
        a, b, y, t = places.rows(rows)
        first, second = (mapped(places.net, end, y) for end in (a, b))  # (n, num_ws, w_dim)
        draw = partial(synthesised, places.net)
        return path_lengths(draw, lambda s: lerp(first, second, s[:, None]), features, t, epsilon)

    def check(self, G: AskedGenerator) -> None:
        if not G.styled:
            raise ValueError(
                f"{self.name} follows paths between styles, and {G.settings} has no space of styles: ask for ppl_z, "
                "which follows paths between latents"
            )


@component
class PathLengthInZ(MeanPathLength):
    """Mean of d(G(z(t)), G(z(t + ε))) / ε² on paths between latents (Karras et al. 2019, eq. 2).

    Fields, d and the number's name (`ppl2_z_inception`) are as in `ppl_w`. A path is the great arc between two latents
    if the prior is normal, and straight if it is uniform. Any generator has such paths.
    """

    name: ClassVar[str] = "ppl_z"
    better: ClassVar[Mapping[str, Better]] = {"ppl2_z": "lower"}

    def lengths(self, places: Places, rows: slice, features: Callable[[Tensor], Tensor], epsilon: float) -> Tensor:
        a, b, y, t = places.rows(rows)
        labels = None if y is None else y.repeat(2)
        draw = partial(drawn, places.net, y=labels)
        return path_lengths(draw, lambda s: places.along(a, b, s), features, t, epsilon)

    def check(self, G: AskedGenerator) -> None:
        """Every generator has paths between latents."""
