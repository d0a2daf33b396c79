"""The order in which training reads images: a function of (seed, position), with nothing to save."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shuffle", "permutation", "stream"]

DATA_ORDER = 0xDA7A  # keeps this use of a seed apart from every other
LONGEST_TABLE = 1 << 20
"""Images of which an epoch's order is a table, 8 MB. Of more, each index is computed when it is asked for."""
ROUNDS = 8


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order of an epoch as a table -> (length,).

    Drawn as the ranks of raw bits, whose stream numpy promises never to change; that of its shuffles it may.
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch, DATA_ORDER))).random_raw(length)
    return np.argsort(bits, kind="stable")


class Shuffle:
    """The order of an epoch without a table: a pseudo-random permutation of range(length), an index at a time.

    A Feistel network on numbers of b bits, 2^b the least power of two that is not below `length` (Luby & Rackoff 1988).
    Its two halves, as equal as b allows, are xored in turn with a keyed hash of the other, which can be undone, so the
    network permutes range(2^b). What it sends past the end it is applied to again until it lies in range (cycle
    walking, Black & Rogaway 2002): fewer than twice on average, and still a permutation.

    Integer operations alone, on keys from numpy's seed sequence, whose values numpy promises never to change. Not for
    lengths of a few: of those it cannot make every order.
    """

    def __init__(self, seed: int, epoch: int, length: int):
        bits = (length - 1).bit_length()
        self.length, self.low = length, np.uint64(bits // 2)
        self.masks = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
        self.keys = np.random.SeedSequence((seed, epoch, DATA_ORDER)).generate_state(ROUNDS, np.uint64)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which images are at these positions of the epoch, all in range(length): (n,) -> (n,)."""
        found = self.network(positions.astype(np.uint64))
        while (outside := np.flatnonzero(found >= self.length)).size:
            found[outside] = self.network(found[outside])
        return found.astype(np.int64)

    def network(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        halves = [x & self.masks[0], x >> self.low]
        for i, key in enumerate(self.keys):
            halves[i % 2] ^= mixed(halves[1 - i % 2] ^ key) & self.masks[i % 2]
        return halves[1] << self.low | halves[0]


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of 64 bits in which each bit depends on all of `x`: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def stream(seed: int, length: int, start: int, stop: int) -> NDArray[np.int64]:
    """Which images are at the positions start ... stop - 1 of the endless stream -> (stop - start,).

    Position i lies in epoch i // length, and each epoch is a permutation of range(length), drawn from (seed, epoch).
    Of more than `LONGEST_TABLE` images, memory depends on stop - start alone, and so does time.
    """
    parts = []
    for epoch in range(start // length, -(-stop // length)):
        first, last = max(start - epoch * length, 0), min(stop - epoch * length, length)
        if length <= LONGEST_TABLE:
            parts.append(permutation(seed, epoch, length)[first:last])
        else:
            parts.append(Shuffle(seed, epoch, length)(np.arange(first, last)))
    return np.concatenate(parts)
