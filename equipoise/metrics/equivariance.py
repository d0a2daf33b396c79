"""Equivariance of a generator to translation and rotation, in decibels (Karras et al. 2021, sec. 2 and app. E).

A generator with an input transform draws an image twice: plain, and moved by its input. The plain image is moved as
pixels. The nearer the two are, the higher the peak signal-to-noise ratio. The functions that move images return the
moved images, and the mask (1, 1, H, W) of pixels that depend on the image alone, and not on its surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.precision import float32_products
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import component

from .base import AskedGenerator, Better, Found, Number, Samples
from .of_generator import OfGenerator, mapped, redraw_noise, synthesised

__all__ = [
    "Moved",
    "fractional_translation",
    "integer_translation",
    "pseudo_rotation",
    "psnr",
    "rotation",
    "rotation_filter",
    "rotation_matrix",
    "translation_matrix",
]

LOBES = 3
"""The a of the Lanczos window, in pixels."""
RADIUS = 6
"""Pixels from the centre of a rotation's filter at which it is cut off."""
EXTENT = 64
"""Pixels from the centre over which a rotation's two filters are convolved."""
UPSAMPLING = 4
"""Factor by which an image is enlarged before it is rotated."""
REACH = 0.125
"""Largest translation along an axis, in widths of the image."""
LARGEST_RATIO = 200.0
"""Decibels reported for equal images. Rounding of float32 alone leaves less than 150."""


class Moved(NamedTuple):
    """A moved image (N, C, H, W), and the mask (1, 1, H, W), bool, of the pixels that count."""

    x: Tensor
    mask: Tensor


# ---- translation -----------------------------------------------------------------------------------------


def integer_translation(x: Tensor, tx: float, ty: float) -> Moved:
    """Shift x (N, C, H, W) right by tx widths and down by ty heights, rounded to whole pixels; zeros come in."""
    height, width = x.shape[2:]
    right, down = round(tx * width), round(ty * height)
    return Moved(shifted(x, right, down), valid(x, (right, right), (down, down)))


def fractional_translation(x: Tensor, tx: float, ty: float) -> Moved:
    """Shift x (N, C, H, W) right by tx widths and down by ty heights, with a Lanczos filter of a = 3.

    Each axis: y_i = sum_k h(k - f) x_(i - n - k) over the 6 taps k = -2 ... 3. n is the whole part of the shift, f in
    [0, 1) the rest, h(t) = sinc(t) sinc(t / 3), divided by the sum of its taps.
    """
    height, width = x.shape[2:]
    (columns, horizontal), (rows, vertical) = lanczos(tx * width), lanczos(ty * height)
    kernel = (vertical[:, None] * horizontal).to(x)
    before, after = LOBES - 1, LOBES  # a tap k reads the pixel k before, so the last tap reaches 3 back
    padded = F.pad(x.flatten(0, 1)[:, None], (after, before, after, before))
    filtered = F.conv2d(padded, kernel.flip(0, 1)[None, None]).view_as(x)
    reach = (columns - before, columns + after), (rows - before, rows + after)
    return Moved(shifted(filtered, columns, rows), valid(x, *reach))


def lanczos(shift: float) -> tuple[int, Tensor]:
    """The whole pixels of a shift, and the taps (6,) for the rest."""
    whole = math.floor(shift)
    t = torch.arange(1 - LOBES, LOBES + 1, dtype=torch.float64) - (shift - whole)
    taps = torch.sinc(t) * window(t)
    return whole, taps / taps.sum()


def window(t: Tensor) -> Tensor:
    """The Lanczos window: sinc(t / a) for |t| < a, else 0."""
    return torch.sinc(t / LOBES) * (t.abs() < LOBES)


def shifted(x: Tensor, right: int, down: int) -> Tensor:
    """Move whole pixels; what leaves the image is lost, and zeros come in."""
    return F.pad(x, (right, -right, down, -down))


def valid(x: Tensor, right: tuple[int, int], down: tuple[int, int]) -> Tensor:
    """Mask of the pixels (i, j) for which every (i - d, j - r) is in the image, d and r between the bounds."""
    inside = [
        (torch.arange(length, device=x.device) - high >= 0) & (torch.arange(length, device=x.device) - low < length)
        for length, (low, high) in zip(x.shape[2:], (down, right), strict=True)
    ]
    return (inside[0][:, None] & inside[1])[None, None]


# ---- rotation --------------------------------------------------------------------------------------------


def rotation(x: Tensor, angle: float) -> Moved:
    """Rotate square images x (N, C, H, H) about their centre by an angle in radians, clockwise as they are shown.

    The image is enlarged 4 times with `rotation_filter`, and sampled bilinearly. The filter passes only what both the
    pixel grid and the rotated grid can hold. The mask leaves out pixels whose filter may reach over the edge.
    """
    size, up = x.shape[3], UPSAMPLING
    fine = upsampled(x, rotation_filter(angle, up), up)  # (N, C, 4H, 4H); sample q lies at pixel q / 4
    i = torch.arange(size, dtype=torch.float64, device=x.device) - (size - 1) / 2
    cos, sin = math.cos(angle), math.sin(angle)
    across = (i * cos - i[:, None] * sin + (size - 1) / 2) * up  # positions in the enlarged image, (H, H)
    down = (i * sin + i[:, None] * cos + (size - 1) / 2) * up
    grid = torch.stack([across, down], -1).mul(2).add(1).div(size * up).sub(1)
    y = F.grid_sample(fine, grid.to(x).expand(len(x), -1, -1, -1), mode="bilinear", align_corners=False)
    # A canvas of 4H samples, centred on the image, begins 2 samples before it. Its border is as wide as the filter.
    first, last = up * RADIUS - up // 2, up * size - up * RADIUS - up // 2 - 1
    inside = [(first <= at.round()) & (at.round() <= last) for at in (across, down)]
    return Moved(y, (inside[0] & inside[1])[None, None])


def pseudo_rotation(x: Tensor, angle: float) -> Moved:
    """Filter images x (N, C, H, W), rotated already, as `rotation` filters: by the other grid's band limit."""
    border = RADIUS - 1
    reach = (-border, border)
    return Moved(upsampled(x, rotation_filter(-angle, 1), 1), valid(x, reach, reach))


def rotation_filter(angle: float, up: int) -> Tensor:
    """The band limit of the pixel grid and of the grid rotated by `angle`: (12 up - 1, 12 up - 1) float64, sum 1.

    The convolution of the two grids' filters sinc(x) sinc(y), times the convolution of their Lanczos windows (a = 3),
    at distances of 1 / up pixels. It is cut off 6 pixels from the centre, and each of its up² phases sums to 1 / up².
    """
    band = with_rotated(torch.sinc, angle, up, EXTENT)
    fade = with_rotated(window, angle, up, EXTENT // 4)
    taps = F.pad(band * fade, (0, 1, 0, 1)).view(2 * RADIUS, up, 2 * RADIUS, up)
    taps = taps / taps.sum((0, 2), keepdim=True) / up**2
    return taps.reshape(2 * RADIUS * up, -1)[:-1, :-1]


def with_rotated(of: Callable[[Tensor], Tensor], angle: float, up: int, extent: int) -> Tensor:
    """f(x) f(y) convolved with itself rotated, less than 6 pixels from the centre: (12 up - 1, 12 up - 1).

    extent: pixels from the centre over which the sum of the convolution runs.
    """
    n = 2 * extent * up
    t = (torch.arange(n, dtype=torch.float64) - n // 2) / up
    cos, sin = math.cos(angle), math.sin(angle)
    turned = of(cos * t + sin * t[:, None]) * of(cos * t[:, None] - sin * t)
    both = [torch.fft.rfft2(torch.fft.ifftshift(each)) for each in (of(t) * of(t)[:, None], turned)]
    cut = slice(n // 2 - RADIUS * up + 1, n // 2 + RADIUS * up)
    whole: Tensor = torch.fft.fftshift(torch.fft.irfft2(both[0] * both[1], s=(n, n)))
    return whole[cut, cut]


def upsampled(x: Tensor, kernel: Tensor, up: int) -> Tensor:
    """X (N, C, H, W), `up` - 1 zeros after each pixel, convolved with up² times `kernel` -> (N, C, up H, up W).

    A kernel of 2 r up - 1 taps falls into up² kernels of 2 r taps, one for each place between pixels.
    """
    reach = (len(kernel) + 1) // (2 * up)
    phases = F.pad(kernel.flip(0, 1) * up**2, (0, 1, 0, 1)).view(2 * reach, up, 2 * reach, up).flip(1, 3)
    weights = phases.permute(1, 3, 0, 2).reshape(up**2, 1, 2 * reach, 2 * reach).to(x)
    padded = F.pad(x.flatten(0, 1)[:, None], (reach - 1, reach, reach - 1, reach))
    return F.pixel_shuffle(F.conv2d(padded, weights), up).view(*x.shape[:2], up * x.shape[2], up * x.shape[3])


# ---- the input's transform and the ratio -----------------------------------------------------------------


def translation_matrix(tx: float, ty: float) -> Tensor:
    """[[1, 0, tx], [0, 1, ty], [0, 0, 1]], float64."""
    return torch.tensor([[1, 0, tx], [0, 1, ty], [0, 0, 1]], dtype=torch.float64)


def rotation_matrix(angle: float) -> Tensor:
    """[[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], float64."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=torch.float64)


def psnr(squares: float, count: float) -> float:
    """20 log10 2 - 10 log10(squares / count): decibels, for images in [-1, 1]; at most 200.

    squares: sum of squared differences.  count: number of terms in the sum.

    Raises:
        ValueError: for count = 0.

    >>> psnr(4.0, 1.0)
    0.0
    """
    if not count > 0:
        raise ValueError(f"no pixel is left to compare: expected images wider than {2 * RADIUS} pixels")
    least = 4 * 10 ** (-LARGEST_RATIO / 10)
    return 20 * math.log10(2) - 10 * math.log10(max(squares / count, least))


# ---- the metrics -----------------------------------------------------------------------------------------


class Motion(NamedTuple):
    """A motion of an image by the input, and by its pixels.

    draw: (random numbers, resolution) -> its parameters.
    input: parameters -> the transform (3, 3) of the input.
    compare: (plain image, image moved by the input, parameters) -> two images to compare, and the mask.
    """

    draw: Callable[[torch.Generator, int], tuple[float, ...]]
    input: Callable[..., Tensor]
    compare: Callable[..., tuple[Tensor, Tensor, Tensor]]


def transform_of(net: nn.Module) -> Tensor | None:
    """The buffer (3, 3) with the transform of a generator's input; None without one."""
    return dict(net.named_buffers()).get("synthesis.input.transform")


@torch.no_grad()
def squared_differences(
    net: nn.Module, ws: Tensor, motion: Motion, parameters: tuple[float, ...]
) -> tuple[float, float]:
    """Sum of the squared differences of moved and drawn images over the mask, and the number of its values.

    net: a generator with an input transform, which is changed.  ws: (N, num_ws, w_dim).
    """
    transform = transform_of(net)
    assert transform is not None  # see `require_transform`
    transform.copy_(torch.eye(3))
    plain = synthesised(net, ws)
    transform.copy_(motion.input(*parameters))
    first, second, mask = motion.compare(plain, synthesised(net, ws), *parameters)
    squares = (first.double() - second.double()).square() * mask
    return float(squares.sum()), float(mask.sum()) * len(plain) * plain.shape[1]


def by_pixels(draw: torch.Generator, size: int) -> tuple[float, float]:
    tx, ty = (round(t * size) / size for t in anywhere(draw, size))
    return tx, ty


def anywhere(draw: torch.Generator, size: int) -> tuple[float, float]:  # noqa: ARG001
    tx, ty = (REACH * (2 * torch.rand(2, generator=draw, dtype=torch.float64) - 1)).tolist()
    return tx, ty


def any_angle(draw: torch.Generator, size: int) -> tuple[float]:  # noqa: ARG001
    return (math.pi * (2 * float(torch.rand((), generator=draw, dtype=torch.float64)) - 1),)


def with_integer_translation(plain: Tensor, made: Tensor, tx: float, ty: float) -> tuple[Tensor, Tensor, Tensor]:
    x, mask = integer_translation(plain, tx, ty)
    return x, made, mask


def with_fractional_translation(plain: Tensor, made: Tensor, tx: float, ty: float) -> tuple[Tensor, Tensor, Tensor]:
    x, mask = fractional_translation(plain, tx, ty)
    return x, made, mask


def with_rotation(plain: Tensor, made: Tensor, angle: float) -> tuple[Tensor, Tensor, Tensor]:
    (x, mask), (filtered, also) = rotation(plain, angle), pseudo_rotation(made, angle)
    return x, filtered, mask & also


EQ_T = Motion(by_pixels, lambda tx, ty: translation_matrix(-tx, -ty), with_integer_translation)
EQ_T_FRAC = Motion(anywhere, lambda tx, ty: translation_matrix(-tx, -ty), with_fractional_translation)
EQ_R = Motion(any_angle, lambda angle: rotation_matrix(-angle), with_rotation)


@torch.no_grad()
def equivariance(G: AskedGenerator, motion: Motion, num: int, batch: int, seed: int) -> float:
    """The ratio in decibels over `num` images. Each batch has one motion, and stored noise of its own."""
    net = G.network()
    device = next(net.parameters()).device
    z, y = G.latents(num, seed)
    draw = stream(seed, Purpose.METRIC_MOTIONS)
    squares = count = 0.0
    with float32_products("ieee"):  # TF32 alone would end at about 60 dB
        for number, start in enumerate(range(0, num, batch)):
            redraw_noise(net, seed, number)
            rows = slice(start, start + batch)
            ws = mapped(net, z[rows].to(device), None if y is None else y[rows].to(device))
            terms = squared_differences(net, ws, motion, motion.draw(draw, G.spec.resolution))
            squares, count = squares + terms[0], count + terms[1]
    return psnr(squares, count)


@component
class Equivariance(OfGenerator[AskedGenerator]):
    """PSNR in dB between images that move with G's input and the same images moved afterwards.

    motion: the motions that are drawn, and how an image is moved.
    num: images.
    batch: images that share a motion and the stored noise.
    """

    least: ClassVar[tuple[int, int]] = (1, 1)
    motion: ClassVar[Motion]

    num: int = Field(default=50_000, ge=1)
    batch: int = Field(default=4, ge=1)

    def check(self, G: AskedGenerator) -> None:
        """Raises ValueError for a generator without an input transform, and for rectangles."""
        if transform_of(G.network()) is None:
            raise ValueError(
                f"{self.name} moves an image by the transform of the generator's input, and {G.settings} has none: ask "
                "it of a StyleGAN3 generator, and leave it out for others"
            )
        if not G.spec.square:
            raise ValueError(f"{self.name} is for square images, and these have {G.spec.size} pixels: leave it out")

    def ask(self, fake: Samples, real: Samples) -> tuple[AskedGenerator]:  # noqa: ARG002
        return (fake.generator,)

    def find(self, seed: int, G: AskedGenerator) -> Found:
        return Found({self.name: Number(equivariance(G, self.motion, self.num, self.batch, seed))}, {})


@component
class TranslationEquivariance(Equivariance):
    """EQ-T: PSNR in dB of images moved by whole pixels, t ~ U(-1/8, 1/8)² widths (Karras et al. 2021, eq. 1).

    PSNR = 20 log10 2 - 10 log10 of the mean squared difference between the shifted image and the image drawn with a
    shifted input, over the pixels that both have. Sums are float64. Images are float32, neither clipped nor rounded.

    num: images.  batch: images that share a motion and the stored noise.
    """

    name: ClassVar[str] = "eq_t"
    better: ClassVar[Mapping[str, Better]] = {"eq_t": "higher"}
    motion: ClassVar[Motion] = EQ_T


@component
class FractionalEquivariance(Equivariance):
    """EQ-T_frac: as EQ-T, with translations that are not rounded to pixels (Karras et al. 2021, app. E.2).

    The image is shifted with a Lanczos filter, a = 3. Pixels within the filter's reach of the edge do not count.
    """

    name: ClassVar[str] = "eq_t_frac"
    better: ClassVar[Mapping[str, Better]] = {"eq_t_frac": "higher"}
    motion: ClassVar[Motion] = EQ_T_FRAC


@component
class RotationEquivariance(Equivariance):
    """EQ-R: PSNR in dB of images rotated by an angle ~ U(-π, π) (Karras et al. 2021, app. E.3).

    The plain image is rotated. The image drawn with a rotated input gets the same band limit without a rotation.
    """

    name: ClassVar[str] = "eq_r"
    better: ClassVar[Mapping[str, Better]] = {"eq_r": "higher"}
    motion: ClassVar[Motion] = EQ_R

    def check(self, G: AskedGenerator) -> None:
        """Raises ValueError for a generator without an input transform, for rectangles, and for too small images."""
        super().check(G)
        least = 2 * RADIUS
        if G.spec.resolution <= least:
            raise ValueError(
                f"{self.name} filters over {least} pixels, and the images have {G.spec.resolution}: leave it out"
            )
