"""A forward and backward of StyleGAN3's generator, and of its upsampling alone, beside plain forms.

    OMP_NUM_THREADS=1 python -m benchmarks.stylegan3 --rounds 5
    OMP_NUM_THREADS=1 python -m benchmarks.stylegan3 --rounds 5 --kind R

Forms of the upsampling: `zeros` inserts zeros and filters at the full rate; `phases` is `upfirdn`; `transposed` and
`matrix` are the two ways of `filtered_lrelu`; `ours` chooses between them by the size of the map. All give the same
numbers up to rounding. Each round times every form, so all meet the same noise. Times are processor seconds, medians
over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.core.types import ImageSpec
from equipoise.models import StyleGAN3Generator
from equipoise.nn import filtered, filters, lowpass
from equipoise.nn.filters import Padding

__all__ = ["FORMS", "layer", "main", "network"]


def zeros(x: Tensor, taps: Tensor | None, up: int, padding: Padding, gain: float, flip: bool) -> Tensor:
    """`filtered.raised` by its definition."""
    N, C, H, W = x.shape
    wide = F.pad(x.reshape(N, C, H, 1, W, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(N, C, H * up, W * up)
    wide = F.pad(wide, padding) * gain
    if taps is None:
        return wide
    kernel = (taps if flip else taps.flip(0)).to(x.dtype).expand(C, 1, 1, -1)
    return F.conv2d(F.conv2d(wide, kernel, groups=C), kernel.transpose(2, 3), groups=C)


def phases(x: Tensor, taps: Tensor | None, up: int, padding: Padding, gain: float, flip: bool) -> Tensor:
    return filters.upfirdn(x, filtered.filled(taps, x), up=up, padding=padding, gain=gain, flip=flip)


@contextmanager
def form(name: str) -> Iterator[None]:
    """`filtered_lrelu` resamples in this form in the block."""
    patches = {
        "zeros": partial(patch.object, filtered, "raised", zeros),
        "phases": partial(patch.object, filtered, "raised", phases),
        "transposed": partial(patch.object, filtered, "UP", 0),
        "matrix": partial(patch.object, filtered, "UP", 1 << 20),
        "strided": partial(patch.object, filtered, "DOWN", 0),
        "ours": partial(patch.object, filtered, "UP", filtered.UP),
    }
    with patches[name]():
        yield


FORMS = ("zeros", "phases", "transposed", "matrix", "strided", "ours")


def layer(size: int, up: int, batch: int, channels: int) -> None:
    """The upsampling of a map by a filter of 6 taps per sample, and the gradient by the map."""
    taps = torch.tensor(lowpass(6 * up, 2.0, 12.0, 16.0 * up), dtype=torch.float32)
    x = torch.randn(batch, channels, size, size, requires_grad=True)
    filtered.raised(x, taps, up, (2 * up, 2 * up, 2 * up, 2 * up), float(up**2), False).sum().backward()


def network(G: torch.nn.Module, z: Tensor) -> None:
    G(z).sum().backward()


def compared(rounds: int, work: Callable[[], None]) -> dict[str, float]:
    """Median processor seconds of each form, over the rounds after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(rounds + 1):
        for name, taken in seconds.items():
            with form(name):
                start = time.process_time()
                work()
                taken.append(time.process_time() - start)
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=("T", "R"), default="T")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--base", type=int, default=2048, help="channel_base")
    parser.add_argument("--most", type=int, default=64, help="channel_max")
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    works: dict[str, Callable[[], None]] = {}
    for size, up, channels in ((38, 2, 64), (86, 2, 32), (150, 2, 8), (38, 4, 32), (86, 4, 8), (278, 4, 1)):
        works[f"{size}x{size}, up {up}"] = partial(layer, size, up, 4, channels)
    settings = StyleGAN3Generator(channel_base=args.base, channel_max=args.most)
    if args.kind == "R":
        settings = StyleGAN3Generator(channel_base=args.base, channel_max=args.most, kernel=1, radial=True)
    G = settings.build(ImageSpec(args.resolution, 3))
    works[f"StyleGAN3-{args.kind}"] = partial(network, G, torch.randn(args.batch, settings.z_dim))
    for name, work in works.items():
        times = compared(args.rounds, work)
        print(f"{name:16}" + "  ".join(f"{label} {1000 * taken:7.1f} ms" for label, taken in times.items()))


if __name__ == "__main__":
    main()
