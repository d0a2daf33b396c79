"""A leaky ReLU between two filters, which keeps a map of samples the map of one band-limited signal."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import Padding, upfirdn

__all__ = ["filtered_lrelu"]


def filtered_lrelu(
    x: Tensor,
    up_filter: Tensor | None,
    down_filter: Tensor | None,
    bias: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0, 0, 0),
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip: bool = False,
) -> Tensor:
    """Add a bias, upsample, apply gain · lrelu, clamp, downsample (Karras et al. 2021, sec. 3.2 and fig. 4).

    x (N, C, H, W) -> (N, C, H', W'), H' = ⌊(H · up + y0 + y1 - taps of both filters + 1) / down⌋ + 1. The kink makes
    frequencies that x lacks. Many of them are above the rate of x, where they would alias. At `up` times that rate
    they do not, and the second filter removes them.

    up_filter: (taps,) of both axes, or (taps_y, taps_x). None: one tap of 1.
    down_filter: the same, before the downsampling.
    bias: (C,), added before the zeros of the padding.
    up, down: factors. The upsampling multiplies by up², so that a filter of sum 1 keeps the size of x.
    padding: samples added left, right, above and below, after the upsampling; a negative number crops.
    gain: factor of the leaky ReLU, positive.
    slope: of the leaky ReLU, below 0. 1: linear.
    clamp: bound of the leaky ReLU, gain included; None: unbounded.
    flip: correlate with both filters instead of convolving.
    """
    if bias is not None:
        x = x + bias.to(x.dtype)[:, None, None]
    x = raised(x, up_filter, up, padding, gain * up**2, flip)  # gain · lrelu(h) = lrelu(gain · h)
    if slope != 1:
        x = F.leaky_relu(x, slope, inplace=slope > 0)  # nobody else holds x; without a slope, autograd needs the input
    if clamp is not None:
        x = F.hardtanh(x, -clamp, clamp)  # a clamp whose gradient is one kernel, not four
    return x if down_filter is None and down == 1 else lowered(x, filled(down_filter, x), down, flip)


def raised(x: Tensor, filter: Tensor | None, up: int, padding: Padding, gain: float, flip: bool) -> Tensor:  # noqa: A002
    """``upfirdn(x, filter, up=up, padding=padding, gain=gain, flip=flip)``, by the fastest way on CPUs.

    A separable filter upsamples one axis after the other, each by a transposed convolution, or by a product with a
    banded matrix where it is small: most of its zeros cost less than the convolution's bookkeeping. On a processor
    with AVX-512, 12 taps and up = 2, the matrix took half the time at 57 samples and 0.4 to 0.6 of it at 75, forward
    and backward; without AVX-512 it was ahead up to 48.
    """
    if filter is None and up == 1:
        return F.pad(x, padding) * gain
    filter = filled(filter, x)  # noqa: A001
    if filter.ndim == 2 or up == 1:
        return upfirdn(x, filter, up=up, padding=padding, gain=gain, flip=flip)
    taps = (filter.flip(0) if flip else filter).to(x.dtype) * math.sqrt(gain)
    x0, x1, y0, y1 = padding
    return along(along(x, taps, up, (x0, x1), axis=3), taps, up, (y0, y1), axis=2)


def lowered(x: Tensor, filter: Tensor, down: int, flip: bool) -> Tensor:  # noqa: A002
    """``upfirdn(x, filter, down=down, flip=flip)``, by the fastest way on CPUs: see `raised`."""
    if filter.ndim == 2 or down == 1 or max(x.shape[2:]) > DOWN * down:
        return upfirdn(x, filter, down=down, flip=flip)
    taps = (filter.flip(0) if flip else filter).to(x.dtype)
    rows, columns = (banded(taps, size, down=down) for size in x.shape[2:])
    return rows @ (x @ columns.T)


def along(x: Tensor, taps: Tensor, up: int, padding: tuple[int, int], axis: int) -> Tensor:
    """Insert up - 1 zeros after each sample of an axis, pad, convolve with taps (T,); without the zeros."""
    size, (before, after) = x.shape[axis], padding
    if size <= UP * up**2:
        matrix = banded(taps, size, up=up, padding=padding)
        return x @ matrix.T if axis == 3 else matrix @ x
    # The transposed convolution is `before` = `after` = T - 1. What that is too much is cropped by its own padding, as
    # far as both ends agree.
    left, right = len(taps) - 1 - before, len(taps) - up - after
    both = max(min(left, right), 0)
    columns, channels = axis == 3, x.shape[1]
    kernel = (taps[None, :] if columns else taps[:, None]).repeat(channels, 1, 1, 1)
    stride, crop = ((1, up), (0, both)) if columns else ((up, 1), (both, 0))
    x = F.conv_transpose2d(x, kernel, stride=stride, padding=crop, groups=channels)
    rest = (both - left, both - right)
    if not any(rest):
        return x  # instead of a copy
    return F.pad(x, rest if columns else (0, 0, *rest))


UP = 20
"""Largest size of an axis, in units of up², that is upsampled by a matrix."""
DOWN = 80
"""Largest size of an axis, in units of down, that is downsampled by a matrix."""


def banded(taps: Tensor, size: int, *, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """The matrix (outputs, size) that upsamples an axis, pads it, convolves it with taps (T,), and downsamples it."""
    last, (before, after) = len(taps) - 1, padding
    outputs = torch.arange(0, size * up + before + after - last, down, device=taps.device)
    inputs = torch.arange(size, device=taps.device)
    tap = last + outputs[:, None] - before - up * inputs
    read = (tap >= 0) & (tap <= last)
    return torch.where(read, taps[tap.clamp(0, last)], 0)


def filled(filter: Tensor | None, x: Tensor) -> Tensor:  # noqa: A002
    """The filter, or one tap of 1."""
    return x.new_ones(1) if filter is None else filter
