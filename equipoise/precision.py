"""In how many digits the losses are computed: bfloat16 where it is asked for, float32 where it would cost too many."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Precision", "mixed", "without_autocast"]

Precision = Literal["float32", "bf16"]
"""What matrix products and convolutions of the losses are computed in. Weights, their gradients, optimisers, norms,
logits and penalties are float32 always; bfloat16 has float32's range and 8 bits, so no loss is scaled.
"""


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a loss is computed (Micikevicius et al. 2018, Kalamkar et al. 2019); not its backward."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on `x`'s device keep the precision of what they are given.

    It does nothing on devices that have no autocast, such as the meta device, where networks are counted.
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
