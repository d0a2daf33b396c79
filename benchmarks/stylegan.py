"""A training iteration of StyleGAN2 beside its plain form, in turn within one process.

    OMP_NUM_THREADS=1 python -m benchmarks.stylegan --rounds 8
    OMP_NUM_THREADS=1 python -m benchmarks.stylegan --rounds 8 --precision bf16

The plain form is the definition: upsampling inserts zeros, then pads, convolves and filters at the full rate; every
image is convolved with its own weights, as a group of one convolution; activations are multiplied by √2 after the
layer; maps are contiguous. Networks, weights, inputs
and losses are the same, and so are the numbers, up to rounding. Each round times one update of D and one of G in each
form, in seconds of the processor, so both meet the same noise. The result is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.compute.precision import Precision
from equipoise.compute.settings import Compute
from equipoise.config import TrainConfig
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import Digits
from equipoise.losses import R1, NonSaturating
from equipoise.models import StyleGAN2Discriminator, StyleGAN2Generator, stylegan2
from equipoise.nn import filters, modulated
from equipoise.nn.filters import Factor, Padding
from equipoise.rules import Adam
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


def players(resolution: int, base: int, most: int, batch: int, precision: Precision, r1: bool) -> GAN:
    cfg = TrainConfig(
        data=Digits(),  # not read
        generator=StyleGAN2Generator(channel_base=base, channel_max=most),
        discriminator=StyleGAN2Discriminator(channel_base=base, channel_max=most),
        loss=NonSaturating(),
        terms=(R1(every=1),) if r1 else (),
        g_optim=Adam(lr=0.0025, betas=(0.0, 0.99)),
        d_optim=Adam(lr=0.0025, betas=(0.0, 0.99)),
        batch_size=batch,
        compute=Compute(precision=precision),
    )
    return GAN.build(cfg, ImageSpec(resolution))


def iteration(gan: GAN, real: Batch) -> None:
    d_step(gan, real, 0)
    g_step(gan, real, 0)


def seconds(call: Callable[[], None]) -> float:
    """Seconds of processor time: other programs on the machine count little."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compared(rounds: int, gan: GAN, real: Batch) -> list[tuple[float, float]]:
    """Seconds of an iteration in the plain form and in ours, for each round after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        with plain():
            slow = seconds(partial(iteration, gan, real))
        times.append((slow, seconds(partial(iteration, gan, real))))
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--base", type=int, default=2048, help="channel_base of both networks")
    parser.add_argument("--most", type=int, default=128, help="channel_max of both networks")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--r1", action="store_true", help="with R1 in every update of D")
    args = parser.parse_args()
    gan = players(args.resolution, args.base, args.most, args.batch, args.precision, args.r1)
    real = Batch(torch.rand(args.batch, 3, args.resolution, args.resolution) * 2 - 1)
    times = compared(args.rounds, gan, real)
    plain_times, own = zip(*times, strict=True)
    ratios = [a / b for a, b in times]
    print(
        f"plain {statistics.median(plain_times):.2f} s, ours {statistics.median(own):.2f} s; ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) over {args.rounds} rounds"
    )


if __name__ == "__main__":
    main()
