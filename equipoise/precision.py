"""In how many digits a step computes: bfloat16 or TF32 where it is asked for, float32 where it would cost too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Precision", "mixed", "tensor_float32", "without_autocast"]

Precision = Literal["float32", "tf32", "bf16"]
"""What matrix products and convolutions are computed in: with "bf16" those of the losses, with "tf32" all of a step.
Weights, their gradients and optimisers are float32 always, and with "bf16" norms, logits and penalties too. Both have
float32's range, so no loss is scaled; bfloat16 has 8 bits of digits, TF32, which some GPUs have, 11.
"""


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a loss is computed (Micikevicius et al. 2018, Kalamkar et al. 2019); not its backward."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def tensor_float32(precision: Precision, device: torch.device) -> Iterator[None]:
    """The context of a whole step, backward included: "tf32" lets a GPU round what float32 products read to 11 bits.

    Otherwise, and elsewhere, PyTorch's switches stay as they are: TF32 for cuDNN's convolutions alone, unless somebody
    set them.
    """
    if precision != "tf32" or device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on `x`'s device keep the precision of what they are given.

    It does nothing on devices that have no autocast, such as the meta device, where networks are counted.
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
