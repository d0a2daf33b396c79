"""A network for each label: translators of several domains, discriminators of several domains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.core.types import Condition, Generated, Logits, Told, label_of

__all__ = ["PerLabel"]


class PerLabel(nn.Module):
    """A network per label: forward(x (N, ...), y) -> the output of network y_i for image i, in the order of the images.

    Each network sees the images of its label only, so batch statistics are per label. A network whose label does not
    occur in the batch is not called. On a GPU the host waits for the labels.

    Raises:
        ValueError: if it is called without labels.
    """

    def __init__(self, nets: Iterable[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor, y: Told = None) -> Any:
        label = label_of(y)
        if label is None:
            raise ValueError("PerLabel holds a network for each label: call it with labels, net(x, y)")
        rows = [(label == i).nonzero().flatten() for i in range(len(self.nets))]
        outputs = [
            net(x[mine], y.map(taking(mine)) if isinstance(y, Condition) else label[mine])
            for net, mine in zip(self.nets, rows, strict=True)
            if len(mine)
        ]
        return joined(outputs, torch.cat(rows).argsort(), [len(mine) / len(x) for mine in rows if len(mine)])


def taking(rows: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda t: t[rows]


def joined(outputs: Sequence[Any], order: Tensor, shares: Sequence[float]) -> Any:
    """Outputs for parts of a batch, joined.  order: restores the order of the images.  shares: each part's of them."""
    first = outputs[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(tuple(outputs))[order]
    if isinstance(first, Logits):
        return Logits(*(joined(parts, order, shares) for parts in zip(*outputs, strict=True)))
    if isinstance(first, Generated):
        x, losses, codes = zip(*outputs, strict=True)
        loss = None if losses[0] is None else sum(share * part for share, part in zip(shares, losses, strict=True))
        return Generated(joined(x, order, shares), loss, joined(codes, order, shares))
    return [joined(parts, order, shares) for parts in zip(*outputs, strict=True)]
