"""Convolutions whose weights a style scales, image by image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.compute.precision import without_autocast

from .filters import blur_filter, convolution_up

__all__ = ["demodulation", "modulated_convolution"]


def modulated_convolution(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    up: int = 1,
    padding: int = 0,
    filter: Tensor | None = None,  # noqa: A002
    input_gain: Tensor | None = None,
    gain: float = 1.0,
    bias: Tensor | None = None,
    fused: bool = False,
) -> Tensor:
    """Convolve image n with the weights w'_oikl = s_ni w_oikl, divided by their length over i, k, l if `demodulate`.

    x (N, I, H, W), weight (O, I, k, k), styles s (N, I) -> (N, O, H', W'). The length is √(Σ_ikl w'² + 1e-8) (Karras
    et al. 2020, eq. 1 and 3).

    up: 1, or 2: upsampled by 2 with `filter`, as in `convolution_up`; `padding` is then unused.
    padding: zeros on each side, for up = 1.
    filter: None: `blur_filter`.
    input_gain: (), (I,) or (N, I), a factor of the input that demodulation does not see (Karras et al. 2021).
    gain: factor of the output.
    bias: (O,), added last.
    fused: convolve each image with its own weights, by groups. False: scale the input by s, convolve all images with
        the same weights, and divide the output: the same function up to rounding, faster on CPUs, and there is no copy
        of the weights for each image.
    """
    factors = demodulation(weight, styles) if demodulate else None  # (N, O)
    scales = styles if input_gain is None else styles * input_gain.to(styles.dtype)
    if fused:
        y = by_groups(x, weight, scales * gain, factors, up, padding, filter)
        return y if bias is None else y + bias.to(y.dtype)[:, None, None]
    if factors is None:
        scales = scales * gain
    y = convolved(x * scales.to(x.dtype)[:, :, None, None], weight, up, padding, filter)
    factors = None if factors is None else (factors * gain).to(y.dtype)[:, :, None, None]
    shift = None if bias is None else bias.to(y.dtype)[:, None, None]
    if factors is None or shift is None:
        return y + shift if factors is None and shift is not None else y if factors is None else y * factors
    return torch.addcmul(shift, y, factors)  # one pass over the maps


def demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """1 / √(Σ_ikl (s_ni w_oikl)² + 1e-8): (O, I, k, k), (N, I) -> (N, O), in float32 at least."""
    wide = torch.promote_types(styles.dtype, torch.float32)
    with without_autocast(styles):
        squares = weight.to(wide).square().sum((2, 3))  # (O, I)
        return (F.linear(styles.to(wide).square(), squares) + 1e-8).rsqrt()


def convolved(
    x: Tensor,
    weight: Tensor,
    up: int,
    padding: int,
    filter: Tensor | None,  # noqa: A002
    groups: int = 1,
) -> Tensor:
    if up == 1:
        return F.conv2d(x, weight, padding=padding, groups=groups)
    return convolution_up(x, weight, blur_filter().to(x) if filter is None else filter, groups)


def by_groups(
    x: Tensor,
    weight: Tensor,
    scales: Tensor,
    factors: Tensor | None,
    up: int,
    padding: int,
    filter: Tensor | None,  # noqa: A002
) -> Tensor:
    """One convolution of N groups, a group for each image with its own weights (N, O, I, k, k)."""
    weights = weight * scales[:, None, :, None, None]
    if factors is not None:
        weights = weights * factors[:, :, None, None, None]
    images = x.flatten(0, 1).unsqueeze(0)  # (1, N · I, H, W)
    y = convolved(images, weights.flatten(0, 1).to(x.dtype), up, padding, filter, groups=len(x))
    out: Tensor = y.squeeze(0).unflatten(0, (len(x), -1))
    return out
