"""In how many digits a step computes: bfloat16 or TF32 where it is asked for, float32 where it would cost too many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Precision", "float32_products", "mixed", "tensor_float32", "without_autocast"]

Precision = Literal["float32", "tf32", "bf16"]
"""What matrix products and convolutions are computed in: with "bf16" those of the losses, with "tf32" all of a step.
Weights, their gradients and optimisers are float32 always, and with "bf16" norms, logits and penalties too. Both have
float32's range, so no loss is scaled; bfloat16 has 8 bits of digits, TF32, which some GPUs have, 11.
"""


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a loss is computed (Micikevicius et al. 2018, Kalamkar et al. 2019); not its backward."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def tensor_float32(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context of a whole step, backward included: "tf32" lets a GPU round what float32 products read to 11 bits.

    Otherwise, and elsewhere, PyTorch's switches stay as they are: TF32 for cuDNN's convolutions alone, unless somebody
    set them.
    """
    return float32_products("tf32") if precision == "tf32" and device.type == "cuda" else nullcontext()


@contextmanager
def float32_products(rounding: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Inside the block GPUs compute products of float32 numbers so, by matmul and in cuDNN's convolutions."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9; later ones dislike a mixture of both
        with older_switches(rounding):
            yield
        return
    cudnn: Any = torch.backends.cudnn
    switches = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = rounding
        yield
    finally:
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision


@contextmanager
def older_switches(rounding: Literal["ieee", "tf32"]) -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if rounding == "tf32" else "highest")
        cudnn.allow_tf32 = rounding == "tf32"
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on `x`'s device keep the precision of what they are given.

    It does nothing on devices that have no autocast, such as the meta device, where networks are counted.
    """
    kind = x.device.type
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()
