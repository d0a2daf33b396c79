"""Gradient accumulation: an update worked through in pieces, only one of which takes memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equipoise.core.types import Batch

__all__ = ["Piece", "count_pieces", "in_pieces", "mean_of", "repeated"]


@dataclass(frozen=True)
class Piece:
    """A part of what an update is computed from.

    real: images, and the labels that generated ones share.
    z: (N, z_dim), a row per image to generate.
    held_out, labelled: as `d_step` is given them, or None.
    share: which part of the whole this is, 1 for all of it. The gradient is Σ share · that of the piece.
    last: whether it is the last one.
    """

    real: Batch
    z: Tensor
    held_out: Batch | None = None
    labelled: Batch | None = None
    share: float = 1.0
    last: bool = True


def count_pieces(images: int, micro_batch: int | None) -> int:
    """How many pieces of equal size, each of at most `micro_batch` images, `images` make; 1 if it is None.

    Raises:
        ValueError: if there is a remainder.
    """
    if micro_batch is None or images <= micro_batch:
        return 1
    if images % micro_batch:
        fitting = max(n for n in range(1, micro_batch) if images % n == 0)
        raise ValueError(
            f"compute.micro_batch={micro_batch} does not divide the {images} images of a process in one update into "
            f"equal pieces: take a divisor of {images}, such as compute.micro_batch={fitting}, or another batch_size"
        )
    return images // micro_batch


def in_pieces(
    count: int, real: Batch, z: Tensor, held_out: Batch | None, labelled: Batch | None, nets: Iterable[nn.Module]
) -> Iterator[Piece]:
    """Both, and the other two if given, in `count` pieces. All start from the buffers that `nets` hold now.

    So power iterations and running averages move once an update, as for the whole in one piece, and all pieces meet
    the same normalised weights.

    Raises:
        ValueError: if `count` does not divide one of them.
    """
    if count == 1:
        yield Piece(real, z, held_out, labelled)
        return
    buffers = [buffer for net in nets for buffer in net.buffers()]
    before = [buffer.clone() for buffer in buffers]
    reals, zs = split(real, count), z.chunk(count)
    unseen, known = ([None] * count if batch is None else split(batch, count) for batch in (held_out, labelled))
    for i in range(count):
        if i > 0:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        yield Piece(reals[i], zs[i], unseen[i], known[i], share=1 / count, last=i == count - 1)


def split(batch: Batch, count: int) -> list[Batch]:
    """In so many equal parts, in order."""
    if len(batch.x) % count:
        raise ValueError(f"{len(batch.x)} images make no {count} equal pieces: give as many as the batch holds")
    size = len(batch.x) // count
    return [batch.map(lambda t, start=i * size: t[start : start + size]) for i in range(count)]  # type: ignore[misc]


def repeated(batch: Batch, times: int) -> Batch:
    """Each image and its label so many times in succession, so that the shares of processes stay in their order."""
    if times == 1:
        return batch
    return batch.map(lambda t: t.repeat_interleave(times, dim=0))


def mean_of(stats: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The means over pieces of scalars that are themselves means over images."""
    if len(stats) == 1:
        return stats[0]
    return {name: torch.stack([piece[name] for piece in stats]).mean() for name in stats[0]}
