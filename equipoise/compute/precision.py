"""Precision of a step: bfloat16 or TF32 where asked for, float32 where rounding would cost too many digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Precision", "float32_products", "mixed", "tensor_float32", "without_autocast"]

Precision = Literal["float32", "tf32", "bf16"]
"""Precision of matrix products and convolutions: "bf16" applies to the losses, "tf32" to everything in a step.

Weights, their gradients and optimisers are always float32. With "bf16", norms, logits and penalties are float32 too.
Both formats have float32's range, so losses are not scaled. bfloat16 keeps 8 significant bits, TF32 (on some GPUs) 11.
"""


def mixed(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context for computing a loss (Micikevicius et al. 2018, Kalamkar et al. 2019); the backward runs outside.

    On devices without autocast, float32.
    """
    lowered = precision == "bf16" and torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, torch.bfloat16) if lowered else nullcontext()


def tensor_float32(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context of a step, backward included. "tf32" lets a GPU round the factors of float32 products to 11 bits.

    With other precisions, and on other devices, PyTorch's switches are left alone. Their default is TF32 for cuDNN's
    convolutions only.
    """
    return float32_products("tf32") if precision == "tf32" and device.type == "cuda" else nullcontext()


@contextmanager
def float32_products(rounding: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Set how GPUs round float32 products in the block, in matmul and in cuDNN's convolutions."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9; later ones object to a mix of both
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
    """A context that turns autocast off on `x`'s device: operations keep the precision of their inputs.

    Devices without autocast are left alone, such as the meta device, where parameters are counted.
    """
    kind = x.device.type
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()
