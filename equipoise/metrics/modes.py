"""Number of modes, counted by a classifier: the classes of images, or the 1,000 modes of stacked digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equipoise.core.types import component

from .arrays import array, shuffled
from .base import Better, Found, Metric, Number, Pixels, Samples
from .judge import DigitsJudge, class_probabilities, digits_judge

__all__ = ["ModeCount", "count_modes", "stacked_modes"]


class ModeCount(NamedTuple):
    """Modes covered by images.

    modes: number of modes with at least one image.
    kl: KL from the modes' shares to equal shares, in nats, 0 to log M.
    """

    modes: int
    kl: float


def count_modes(mode: ArrayLike | Tensor, num_modes: int) -> ModeCount:
    """Modes covered, and KL(q ‖ 1/M) = Σ_k q_k log(M q_k), q the share of each mode (Metz et al. 2017, sec. 3.3.1).

    mode: (N,) ids from 0 to M - 1, such as the classifier's `argmax`.
    num_modes: M.

    Even real data do not reach 0: N images have about (M - 1) / 2N. Published numbers use 26,000 stacked digits.

    Raises:
        ValueError: for no images, or ids that are not integers in range.

    >>> count_modes([0, 0, 2, 2], 3)
    ModeCount(modes=2, kl=0.405...)
    """
    ids = array(mode)
    if ids.ndim != 1 or len(ids) == 0 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"expected at least one mode id, as integers (N,), got {ids.dtype} of shape {ids.shape}")
    if ids.min() < 0 or ids.max() >= num_modes:
        raise ValueError(f"there are modes 0 to {num_modes - 1}, but the ids reach from {ids.min()} to {ids.max()}")
    counts = np.bincount(ids.astype(np.int64), minlength=num_modes)
    q = counts[counts > 0] / len(ids)
    return ModeCount(len(q), float((q * np.log(q)).sum()) + math.log(num_modes))


def stacked_modes(judge: DigitsJudge, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """100 a + 10 b + c for images whose red, green and blue are digits a, b and c: uint8 (N, 28, 28, 3) -> (N,).

    The data set is `data.StackedDigits`.

    Raises:
        ValueError: for images of another shape.
    """
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"stacked digits are images of three channels, uint8 (N, 28, 28, 3), got {images.shape}")
    digits = [class_probabilities(judge, images[..., c : c + 1]).argmax(axis=1) for c in range(3)]
    return np.asarray(100 * digits[0] + 10 * digits[1] + digits[2], dtype=np.int64)


@component
class Modes(Metric[Pixels, Pixels]):
    """Number of the 1,000 modes of stacked digits, and KL from equal shares, by the judge of digits (Metz et al. 2017).

    It applies to stacked digits only. The numbers beside both are for an equal number of real images.
    """

    name: ClassVar[str] = "modes"
    better: ClassVar[Mapping[str, Better]] = {"modes": "higher", "modes_kl": "lower"}
    least: ClassVar[tuple[int, int]] = (1, 1)

    def ask(self, fake: Samples, real: Samples) -> tuple[Pixels, Pixels]:
        return fake.pixels, real.pixels

    def find(self, seed: int, fake: Pixels, real: Pixels) -> Found:
        judge, real = digits_judge(), shuffled(real, seed)[: len(fake)]
        of_fake, of_real = (count_modes(stacked_modes(judge, images), 1000) for images in (fake, real))
        numbers = {
            "modes": Number(of_fake.modes, None, of_real.modes),
            "modes_kl": Number(of_fake.kl, None, of_real.kl),
        }
        return Found(numbers, {"real": len(real)})
