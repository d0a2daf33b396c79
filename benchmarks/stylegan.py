"""A training iteration of StyleGAN2 beside its plain form, in turn within one process.

    OMP_NUM_THREADS=1 python -m benchmarks.stylegan --rounds 8
    OMP_NUM_THREADS=1 python -m benchmarks.stylegan --rounds 8 --precision bf16 --channels 2048 128

The plain form is the definition: upsampling inserts zeros, then pads, convolves and filters at the full rate; every
image is convolved with its own weights, as a group of one convolution; activations are multiplied by √2 after the
layer; maps are contiguous. Networks, weights, inputs and losses are the same, and so are the numbers, up to rounding.
Each round times one update of D and one of G in each form, in seconds of the processor, so all meet the same noise. The
result is the median of the ratios within a round. In bfloat16 ours is compared with the plain form in float32 too.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.compute.precision import Precision
from equipoise.config import override
from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import R1
from equipoise.models import stylegan2
from equipoise.nn import filters, modulated
from equipoise.nn.filters import Factor, Padding
from equipoise.recipes.stylegan2 import stylegan2_small
from equipoise.train import GAN, d_step, g_step

__all__ = ["compared", "main", "plain"]

# ---- the plain form --------------------------------------------------------------------------------------


def zeros_inserted(x: Tensor, up: tuple[int, int]) -> Tensor:
    """Insert zeros after each sample; up: (of y, of x)."""
    N, C, H, W = x.shape
    spread = F.pad(x.reshape(N, C, H, 1, W, 1), (0, up[1] - 1, 0, 0, 0, up[0] - 1))
    return spread.reshape(N, C, H * up[0], W * up[1])


def plain_upfirdn(
    x: Tensor,
    filter: Tensor,  # noqa: A002
    up: Factor = 1,
    down: Factor = 1,
    padding: Padding = (0, 0, 0, 0),
    gain: float = 1.0,
    flip: bool = False,
) -> Tensor:
    (up_x, up_y), (down_x, down_y) = filters.pair(up), filters.pair(down)
    taps = filter if filter.ndim == 2 else torch.outer(filter, filter)
    kernel = (gain * (taps if flip else taps.flip(0, 1))).to(x.dtype).expand(x.shape[1], 1, -1, -1)
    y = F.conv2d(F.pad(zeros_inserted(x, (up_y, up_x)), padding), kernel, groups=x.shape[1])
    return y[:, :, ::down_y, ::down_x]


def plain_convolution_up(x: Tensor, weight: Tensor, filter: Tensor, groups: int = 1) -> Tensor:  # noqa: A002
    if weight.shape[2] == 1:
        return filters.upsample(F.conv2d(x, weight, groups=groups), filter)
    y = F.conv2d(F.pad(zeros_inserted(x, (2, 2)), (2, 1, 2, 1)), weight.flip(2, 3), groups=groups)
    return plain_upfirdn(y, filter, padding=(1, 1, 1, 1), gain=4.0)


def plain_lrelu(h: Tensor, *, gain: float = 1.0, clamp: float | None = None, scaled: bool = False) -> Tensor:  # noqa: ARG001
    h = F.leaky_relu(h, 0.2) * (math.sqrt(2) * gain)
    return h if clamp is None else h.clamp(-clamp * gain, clamp * gain)


@contextmanager
def plain() -> Iterator[None]:
    """StyleGAN2 computes in the plain form in the block."""
    per_image = partial(modulated.modulated_convolution, fused=True)
    with (
        patch.object(filters, "upfirdn", plain_upfirdn),
        patch.object(modulated, "convolution_up", plain_convolution_up),
        patch.object(stylegan2, "convolution_up", plain_convolution_up),
        patch.object(stylegan2, "modulated_convolution", per_image),
        patch.object(stylegan2, "arranged", lambda h: h),
        patch.object(stylegan2, "lrelu_gain", lambda gain: 1.0),  # noqa: ARG005
        patch.object(stylegan2, "scaled_lrelu", plain_lrelu),
    ):
        yield


# ---- measuring -------------------------------------------------------------------------------------------


def players(resolution: int, channels: tuple[int, int] | None, batch: int, precision: Precision, r1: bool) -> GAN:
    """Players of `stylegan2_small`. channels: channel_base and channel_max of both networks; None: the recipe's."""
    changes: dict[str, Any] = {"terms": (R1(every=1),) if r1 else (), "compute.precision": precision}
    if channels is not None:
        names = itertools.product(("generator", "discriminator"), ("channel_base", "channel_max"))
        changes |= {f"{player}.{name}": width for (player, name), width in zip(names, channels * 2, strict=True)}
    return GAN.build(override(stylegan2_small(resolution, batch), changes), ImageSpec(resolution))


def iteration(gan: GAN, real: Batch) -> None:
    d_step(gan, real, 0)
    g_step(gan, real, 0)


def seconds(call: Callable[[], None]) -> float:
    """Seconds of processor time: other programs on the machine count little."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compared(rounds: int, ours: GAN, others: Sequence[GAN], real: Batch) -> list[list[float]]:
    """Seconds of an iteration of each of the others in the plain form, then of ours, for each round after the first."""
    times = []
    for _ in range(rounds + 1):
        with plain():
            slow = [seconds(partial(iteration, gan, real)) for gan in others]
        times.append([*slow, seconds(partial(iteration, ours, real))])
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--channels", type=int, nargs=2, metavar=("BASE", "MAX"), help="of both networks")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--r1", action="store_true", help="with R1 in every update of D")
    args = parser.parse_args()
    precisions: list[Precision] = ["float32"] if args.precision == "float32" else ["float32", "bf16"]
    gans = [players(args.resolution, args.channels, args.batch, precision, args.r1) for precision in precisions]
    real = Batch(torch.rand(args.batch, 3, args.resolution, args.resolution) * 2 - 1)
    *plain_times, ours = zip(*compared(args.rounds, gans[-1], gans, real), strict=True)
    print(f"ours, {precisions[-1]}: {statistics.median(ours):.2f} s")
    for precision, slow in zip(precisions, plain_times, strict=True):
        ratios = [a / b for a, b in zip(slow, ours, strict=True)]
        print(
            f"plain, {precision}: {statistics.median(slow):.2f} s, {statistics.median(ratios):.2f} times ours "
            f"({min(ratios):.2f} to {max(ratios):.2f}) over {args.rounds} rounds"
        )


if __name__ == "__main__":
    main()
