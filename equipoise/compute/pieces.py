"""Gradient accumulation: an update in pieces, so that only one piece takes memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equipoise.core.types import Batch

__all__ = ["Piece", "count_pieces", "in_pieces", "mean_of", "repeated"]


@dataclass(frozen=True)
class Piece:
    """A slice of an update's inputs.

    real: real images; the generated images share their labels.
    z: (N, z_dim), one row per image to generate.
    held_out, labelled: slices of the batches that `d_step` takes, or None.
    share: fraction of the update's images in this piece. The update's gradient is Σ share · gradient of the piece.
    last: whether this is the last piece.
    """

    real: Batch
    z: Tensor
    held_out: Batch | None = None
    labelled: Batch | None = None
    share: float = 1.0
    last: bool = True


def count_pieces(images: int, micro_batch: int | None) -> int:
    """Number of equal pieces of `micro_batch` images; 1 if it is None or at least `images`.

    Raises:
        ValueError: if `micro_batch` is smaller than `images` and does not divide it.
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
    """Split an update's batches into `count` pieces. All pieces start from the current buffers of `nets`.

    So power iterations and running averages move once an update, as without pieces, and all pieces see the same
    normalised weights.

    Raises:
        ValueError: if `count` does not divide the size of a batch.
    """
    if count == 1:
        yield Piece(real, z, held_out, labelled)
        return
    buffers = [buffer for net in nets for buffer in net.buffers()]
    before = [buffer.clone() for buffer in buffers]
    reals, zs = split(real, count), z.chunk(count)
    unseen, labels = ([None] * count if batch is None else split(batch, count) for batch in (held_out, labelled))
    for i in range(count):
        if i > 0:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        yield Piece(reals[i], zs[i], unseen[i], labels[i], share=1 / count, last=i == count - 1)


def split(batch: Batch, count: int) -> list[Batch]:
    """`count` equal slices, in order."""
    if len(batch.x) % count:
        raise ValueError(f"{len(batch.x)} images make no {count} equal pieces: give a multiple of that number")
    size = len(batch.x) // count
    return [batch.map(lambda t, start=i * size: t[start : start + size]) for i in range(count)]  # type: ignore[misc]


def repeated(batch: Batch, times: int) -> Batch:
    """Repeat each image and its label `times` times in succession, so that the processes' slices stay in order."""
    if times == 1:
        return batch
    return batch.map(lambda t: t.repeat_interleave(times, dim=0))


def mean_of(stats: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over pieces. Each statistic is itself a mean over the images of a piece."""
    if len(stats) == 1:
        return stats[0]
    return {name: torch.stack([piece[name] for piece in stats]).mean() for name in stats[0]}
