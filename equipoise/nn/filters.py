"""Resampling with a FIR filter: upsample, filter, downsample, without ever computing with inserted zeros."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .fixed import fixed_convolution

__all__ = ["blur_filter", "convolution_down", "convolution_up", "downsample", "upfirdn", "upsample"]

Factor = int | tuple[int, int]
"""A factor of both axes, or one for x and one for y."""
Padding = tuple[int, int, int, int]
"""Samples added left, right, above and below; a negative number crops."""


def blur_filter() -> Tensor:
    """The 4x4 filter of StyleGAN2, outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64 (Karras et al. 2020)."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / 64


def upfirdn(
    x: Tensor,
    filter: Tensor,  # noqa: A002
    up: Factor = 1,
    down: Factor = 1,
    padding: Padding = (0, 0, 0, 0),
    gain: float = 1.0,
    flip: bool = False,
) -> Tensor:
    """Upsample, pad, filter, downsample: x (N, C, H, W) -> (N, C, H', W'), the same filter for every channel.

    As if: insert up - 1 zeros after each sample; pad with zeros; convolve, without further padding; keep every down-th
    sample from the first. H' = ⌊(H · up + y0 + y1 - taps) / down⌋ + 1. The zeros are skipped: each of the up² phases of
    the output is a convolution of x with every up-th tap.

    filter: (taps_y, taps_x), or (taps,) for the outer product with itself, which is applied to one axis after the
        other.
    up, down: a factor, or (of x, of y).
    padding: (x0, x1, y0, y1), in samples after the upsampling.
    gain: factor of the output.
    flip: correlate instead of convolving.

    Raises:
        ValueError: if the padded image is smaller than the filter.
    """
    (up_x, up_y), (down_x, down_y) = pair(up), pair(down)
    x0, x1, y0, y1 = padding
    height, width = x.shape[2] * up_y + y0 + y1, x.shape[3] * up_x + x0 + x1
    if height < filter.shape[0] or width < filter.shape[-1]:
        raise ValueError(
            f"an image of {height}x{width} pixels, padding included, is smaller than its filter of "
            f"{filter.shape[0]}x{filter.shape[-1]} taps: give a larger image, or more padding"
        )
    taps = (filter if flip else filter.flip(list(range(filter.ndim)))).to(x.dtype)
    if filter.ndim == 2:
        return resampled(x, taps * gain, (up_y, up_x), (down_y, down_x), padding)
    taps = taps * gain**0.5
    x = resampled(x, taps[None], (1, up_x), (1, down_x), (x0, x1, 0, 0))
    return resampled(x, taps[:, None], (up_y, 1), (down_y, 1), (0, 0, y0, y1))


def resampled(x: Tensor, taps: Tensor, up: tuple[int, int], down: tuple[int, int], padding: Padding) -> Tensor:
    """`upfirdn` as a correlation with taps (taps_y, taps_x). up, down: (of y, of x)."""
    x0, x1, y0, y1 = padding
    if up == (1, 1):
        if x0 == x1 >= 0 and y0 == y1 >= 0:  # which the convolution pads itself, without a copy
            return depthwise(x, taps[None], down, (y0, x0))
        return depthwise(F.pad(x, padding), taps[None], down)
    rows = Phases.of(x.shape[2], up[0], (y0, y1), taps.shape[0])
    columns = Phases.of(x.shape[3], up[1], (x0, x1), taps.shape[1])
    kernels = torch.einsum("pkt,tu,qlu->pqkl", rows.taps.to(taps), taps, columns.taps.to(taps)).flatten(0, 1)
    y = depthwise(F.pad(x, (*columns.padding, *rows.padding)), kernels, (1, 1))  # (N, C · up², H, W)
    y = y.unflatten(1, (x.shape[1], *up)).permute(0, 1, 4, 2, 5, 3).flatten(2, 3).flatten(3)
    out: Tensor = y[:, :, : rows.length : down[0], : columns.length : down[1]]
    return out


class Phases(NamedTuple):
    """One axis of an upsampling by `up`: output sample q · up + r is Σ_k taps[r, k] · filter · x[q + k - padding[0]].

    taps: (up, K, filter length), 1 where phase r reads this tap at the k-th sample, else 0.
    padding: of x.
    length: of the output.
    """

    taps: Tensor
    padding: tuple[int, int]
    length: int

    @classmethod
    def of(cls, size: int, up: int, padding: tuple[int, int], taps: int) -> Phases:
        """`taps`: length of the filter.  `padding`: after the upsampling."""
        before, after = padding
        length = size * up + before + after - taps + 1
        first_taps = [(before - r) % up for r in range(up)]
        shifts = [(r + tap - before) // up for r, tap in enumerate(first_taps)]  # of x, exact
        counts = [len(range(tap, taps, up)) for tap in first_taps]
        first = min(shifts)
        kernel = max(shift - first + count for shift, count in zip(shifts, counts, strict=True))
        reads = torch.zeros(up, kernel, taps)
        for r, (tap, shift, count) in enumerate(zip(first_taps, shifts, counts, strict=True)):
            for k in range(count):
                reads[r, shift - first + k, tap + up * k] = 1
        return cls(reads, (-first, first + -(-length // up) + kernel - 1 - size), length)


def depthwise(x: Tensor, kernels: Tensor, stride: tuple[int, int], padding: tuple[int, int] = (0, 0)) -> Tensor:
    """Correlate each channel of x (N, C, H, W) with each of the kernels (M, k, l) -> (N, C · M, H', W')."""
    C = x.shape[1]
    weight = kernels.unsqueeze(1).repeat(C, 1, 1, 1)
    if x.requires_grad and torch.is_grad_enabled() and not weight.requires_grad:
        return fixed_convolution(x, weight, stride, padding)
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=C)


def pair(factor: Factor) -> tuple[int, int]:
    return factor if isinstance(factor, tuple) else (factor, factor)


# ---- images twice and half as large ----------------------------------------------------------------------


def upsample(x: Tensor, filter: Tensor, up: int = 2) -> Tensor:  # noqa: A002
    """(N, C, H, W) -> (N, C, up · H, up · W), centred: a filter of even length leaves the image where it is."""
    before, after = zip(*(((taps + up - 1) // 2, (taps - up) // 2) for taps in sides(filter)), strict=True)
    return upfirdn(x, filter, up=up, padding=(before[1], after[1], before[0], after[0]), gain=up**2)


def downsample(x: Tensor, filter: Tensor, down: int = 2) -> Tensor:  # noqa: A002
    """(N, C, H, W) -> (N, C, H / down, W / down), centred."""
    before, after = zip(*(((taps - down + 1) // 2, (taps - down) // 2) for taps in sides(filter)), strict=True)
    return upfirdn(x, filter, down=down, padding=(before[1], after[1], before[0], after[0]))


def sides(filter: Tensor) -> tuple[int, int]:  # noqa: A002
    """Taps of both axes, (y, x)."""
    return filter.shape[0], filter.shape[-1]


# ---- convolutions between them ---------------------------------------------------------------------------


def convolution_up(x: Tensor, weight: Tensor, filter: Tensor, groups: int = 1) -> Tensor:  # noqa: A002
    """Upsample by 2, filter and convolve: x (N, I, H, W), weight (O, I / groups, k, k), k 1 or 3 -> (N, O, 2H, 2W).

    For k = 3 the weight is flipped against a plain layer's: the sum is a transposed convolution with the weight as it
    is, then the filter (Karras et al. 2020, in the authors' code). For k = 1 the convolution comes first: the two
    commute.
    """
    if weight.shape[2] == 1:
        return upsample(F.conv2d(x, weight, groups=groups), filter)
    swapped = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # (I, O / groups, k, k)
    x = F.conv_transpose2d(x, swapped, stride=2, groups=groups)  # (N, O, 2H + 1, 2W + 1)
    before, after = zip(*(((taps - 1) // 2, (taps - 2) // 2) for taps in sides(filter)), strict=True)
    return upfirdn(x, filter, padding=(before[1], after[1], before[0], after[0]), gain=4.0)


def convolution_down(x: Tensor, weight: Tensor, filter: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002
    """Filter, convolve, and downsample by 2: x (N, I, H, W), weight (O, I, k, k), k 1 or 3 -> (N, O, H / 2, W / 2)."""
    if weight.shape[2] == 1:
        return F.conv2d(downsample(x, filter), weight, bias)
    before, after = zip(*(((taps + 1) // 2, taps // 2) for taps in sides(filter)), strict=True)
    x = upfirdn(x, filter, padding=(before[1], after[1], before[0], after[0]))
    return F.conv2d(x, weight, bias, stride=2)
