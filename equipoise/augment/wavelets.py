"""Filters of orthogonal wavelets, as matrices for one axis of an image: `A @ x @ B.mT` filters rows and columns.

The matrices include the reflection at the border, suit images of any size, and do not depend on how a device rounds
convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, reduce
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["DELAY", "FIRST", "bands", "downsampling", "reflect", "upsampling"]

Array = NDArray[np.float64]
Positions = TypeVar("Positions", Tensor, NDArray[np.int64])

# Low-pass filters of the symlets with 2 and with 6 vanishing moments, Σh = √2 (Daubechies 1992, sec. 6.4 and 8.1).
SYM2 = np.array([-0.12940952255126037, 0.2241438680420134, 0.8365163037378079, 0.48296291314453416])
SYM6 = np.array(
    [
        *(0.015404109327044821, 0.0034907120842221674, -0.11799011114852, -0.048311742585698085),
        *(0.49105594192797364, 0.787641141028651, 0.3379294217281659, -0.07263752278637658),
        *(-0.021060292512370862, 0.04472490177078139, 0.0017677118642540103, -0.00780070832503238),
    ]
)
DELAY = float(np.arange(len(SYM6)) @ SYM6 / SYM6.sum())
"""Delay of a smooth signal by SYM6, in samples: 5.1."""
FIRST = int(DELAY)
"""Part of that delay that `upsampling` removes, in samples."""


def reflect(x: Positions, size: int) -> Positions:
    """Map any positions to [0, size - 1], for an image mirrored at its outermost pixels again and again."""
    last = size - 1
    return last - abs(x % (2 * last) - last)


def upsampling(size: int, like: Tensor) -> Tensor:
    """Matrix (4 size - 3, size) that doubles the samples of a signal, mirrored at its outermost pixels again and again.

    The first 4 size - 4 samples are one period of the result, and the last repeats the first. Pixel n of the input lies
    at position 2 n + DELAY - FIRST of the output.
    """
    return stored(make_upsampling, size, like.device, like.dtype)


def downsampling(size: int, like: Tensor) -> Tensor:
    """Matrix (size, 2 size + 10) that halves the samples of a signal.

    Pixel n of the output lies at position 2 n + DELAY of the input. The matrix inverts `upsampling` if its input begins
    FIRST samples before the upsampled signal. Frequencies that half the samples cannot hold are dropped.
    """
    return stored(make_downsampling, size, like.device, like.dtype)


def bands(size: int, like: Tensor) -> Tensor:
    """Matrices (4, size, size) that split a signal into the frequencies [0, π/8], [π/8, π/4], [π/4, π/2], [π/2, π].

    They sum to the identity.
    """
    return stored(make_bands, size, like.device, like.dtype)


@lru_cache(maxsize=64)
def stored(make: Callable[[int], Array], size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a matrix first made in inference must serve training later
        return torch.from_numpy(make(size)).to(device, dtype)


def make_upsampling(size: int) -> Array:
    matrix = np.zeros((4 * size - 3, size))
    for row in range(4 * size - 3):
        for tap in range((row + FIRST) % 2, len(SYM6), 2):  # sample k holds h[k - 2n] of pixel n
            matrix[row, reflect(np.array((row + FIRST - tap) // 2), size)] += np.sqrt(2) * SYM6[tap]
    return matrix


def make_downsampling(size: int) -> Array:
    matrix = np.zeros((size, 2 * size + len(SYM6) - 2))
    for n in range(size):
        matrix[n, 2 * n : 2 * n + len(SYM6)] = SYM6 / np.sqrt(2)
    return matrix


def make_bands(size: int) -> Array:
    kernels = band_kernels()
    reach = kernels.shape[1] // 2
    matrix = np.zeros((len(kernels), size, size))
    for n in range(size):
        for offset in range(-reach, reach + 1):
            matrix[:, n, reflect(np.array(n + offset), size)] += kernels[:, reach + offset]
    return matrix


def band_kernels() -> Array:
    """(4, 43): zero-phase band-pass filters of SYM2's dyadic filter bank, lowest band first, centred (Karras et al. B).

    With low = H(z) H(1/z) / 2 and high = 1 - low, the bands are low(z) low(z²) low(z⁴), low(z) low(z²) high(z⁴),
    low(z) high(z²) and high(z): a partition of 1.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = -low
    high[len(high) // 2] += 1

    def stretched(kernel: Array, factor: int) -> Array:
        """kernel(z) -> kernel(z^factor)."""
        wide = np.zeros(factor * (len(kernel) - 1) + 1)
        wide[::factor] = kernel
        return wide

    lows, highs = ([stretched(kernel, 2**k) for k in range(3)] for kernel in (low, high))
    chains = [lows, [*lows[:2], highs[2]], [lows[0], highs[1]], [highs[0]]]
    kernels = [reduce(np.convolve, chain) for chain in chains]
    reach = max(len(kernel) for kernel in kernels) // 2
    return np.stack([np.pad(kernel, reach - len(kernel) // 2) for kernel in kernels])
