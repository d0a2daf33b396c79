"""Where bfloat16 would cost too many digits: float32 in the middle of autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["without_autocast"]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on `x`'s device keep the precision of what they are given.

    It does nothing on devices that have no autocast, such as the meta device, where networks are counted.
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
