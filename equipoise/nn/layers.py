"""Small pieces that several architectures share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core.types import Told, label_of

from .conditioning import EMBED, MiddleConcat

__all__ = ["OneHot", "conditions", "in_a_row", "joined", "labels"]


class OneHot(nn.Module):
    """y (N,) -> (N, num_classes) float32, one 1 per row."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, y: Tensor) -> Tensor:
        return F.one_hot(y, self.num_classes).to(torch.float32)


def labels(y: Told) -> Tensor:
    """The labels of a conditional generator. Raises ValueError if it was called without labels."""
    label = label_of(y)
    if label is None:
        raise ValueError("this generator is conditioned on the class: call it with labels, G(z, y)")
    return label


def conditions(embed: nn.Embedding | None, chunks: Sequence[Tensor], y: Tensor | None) -> Iterator[Tensor | None]:
    """Inputs of a generator's conditional norms, first layer first: [e(y), chunk] (N, condition), or y.

    embed: e, shared by all norms. None: each norm reads its chunk alone, or y itself if the chunks are empty.
    chunks: of z, one per norm, all (N, length); empty where only the first layer reads z.
    """
    if embed is None:
        return iter(chunks) if chunks[-1].shape[1] else repeat(y)
    e = embed(labels(y))
    return (torch.cat([e, chunk], dim=1) for chunk in chunks)


# ---- a class that joins a map in the middle of D -------------------------------------------------------


def joined(widths: Sequence[int], join: int, name: str) -> list[tuple[int, int]]:
    """(c_in, c_out) of each block, where e(y) joins the map after the first `join` blocks; 0: none.

    Raises:
        ValueError: if no block follows the first `join`.
    """
    pairs = list(pairwise(widths))
    if join >= len(pairs):
        raise ValueError(
            f"{name}(join={join}): with images of this size it has {len(pairs)} blocks, and a class joins the map "
            f"between two of them. Set join to 1 to {len(pairs) - 1}, or 0 for none."
        )
    return [(c_in + EMBED * (0 < i == join), c_out) for i, (c_in, c_out) in enumerate(pairs)]


def in_a_row(layers: Sequence[nn.Module], join: int, num_classes: int) -> nn.Module:
    """A body of `layers` in sequence, where e(y) joins the map after the first `join` layers; 0: none."""
    if join == 0:
        return nn.Sequential(*layers)
    return MiddleConcat(nn.Sequential(*layers[:join]), nn.Sequential(*layers[join:]), num_classes)
