"""The order in which training reads images: a function of (seed, position), so no state to save."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shuffle", "permutation", "stream"]

DATA_ORDER = 0xDA7A  # separates this use of a seed from all others
LONGEST_TABLE = 1 << 20
"""Largest data set, in images, whose epoch order is a table (8 MB). Larger sets compute each index on demand."""
ROUNDS = 8


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order of an epoch as a table -> (length,).

    The table holds the ranks of raw random bits. numpy promises never to change that stream; its shuffles may change.
    """
    bits = np.random.PCG64(np.random.SeedSequence((seed, epoch, DATA_ORDER))).random_raw(length)
    return np.argsort(bits, kind="stable")


class Shuffle:
    """The order of an epoch without a table: a pseudo-random permutation of range(length), an index at a time.

    A Feistel network on numbers of b bits, 2^b the least power of two >= `length` (Luby & Rackoff 1988). Its two halves
    are as equal as b allows. Each in turn is xored with a keyed hash of the other. Every such round can be undone, so
    the network permutes range(2^b). A result beyond `length` goes through the network again until it lies in range
    (cycle walking, Black & Rogaway 2002): fewer than two passes on average, and still a permutation.

    It uses integer operations only, with keys from numpy's seed sequence, whose values numpy promises never to change.
    It does not suit very short lengths, where it cannot produce every order.
    """

    def __init__(self, seed: int, epoch: int, length: int):
        bits = (length - 1).bit_length()
        self.length, self.low = length, np.uint64(bits // 2)
        self.masks = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
        self.keys = np.random.SeedSequence((seed, epoch, DATA_ORDER)).generate_state(ROUNDS, np.uint64)

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of the images at these positions of the epoch, all in range(length): (n,) -> (n,)."""
        images = self.network(positions.astype(np.uint64))
        while (outside := np.flatnonzero(images >= self.length)).size:
            images[outside] = self.network(images[outside])
        return images.astype(np.int64)

    def network(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        halves = [x & self.masks[0], x >> self.low]
        for i, key in enumerate(self.keys):
            halves[i % 2] ^= mixed(halves[1 - i % 2] ^ key) & self.masks[i % 2]
        return halves[1] << self.low | halves[0]


def mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A 64-bit hash: every bit depends on all of `x`. The finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def stream(seed: int, length: int, start: int, stop: int) -> NDArray[np.int64]:
    """Indices of the images at positions start ... stop - 1 of the endless stream -> (stop - start,).

    Position i lies in epoch i // length, and each epoch is a permutation of range(length), drawn from (seed, epoch).
    Above `LONGEST_TABLE` images, memory and time depend only on stop - start.
    """
    parts = []
    for epoch in range(start // length, -(-stop // length)):
        first, last = max(start - epoch * length, 0), min(stop - epoch * length, length)
        if length <= LONGEST_TABLE:
            parts.append(permutation(seed, epoch, length)[first:last])
        else:
            parts.append(Shuffle(seed, epoch, length)(np.arange(first, last)))
    return np.concatenate(parts)
