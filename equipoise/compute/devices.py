"""Devices: why one is missing, and what a device cannot do, with the way that is taken instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .settings import Compute

__all__ = ["WITHOUT_FLOAT64", "fallbacks", "missing", "wide"]

WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices that lack float64."""
MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
"""Environment variable of torch: "1" computes on the CPU what Apple's GPUs lack. The command line sets it on a Mac."""


def wide(x: Tensor) -> Tensor:
    """`x` in float64, where it is; on the CPU if its device lacks float64."""
    return (x.cpu() if x.device.type in WITHOUT_FLOAT64 else x).double()


def missing(device: torch.device) -> str:
    """Why torch does not see `device` on this machine, and what to do about it. One sentence."""
    reasons: dict[str, Callable[[], str]] = {"cuda": without_cuda, "mps": without_mps}
    return reasons.get(device.type, lambda: f"this torch ({torch.__version__}) has no {device.type}")()


def without_cuda() -> str:
    version = torch.version.cuda or torch.version.hip
    if version is None:
        there = " although a GPU of NVIDIA is there" if nvidia_here() else ""
        return (
            f"this torch ({torch.__version__}) was built without CUDA{there}: install a build with CUDA, from "
            "https://pytorch.org/get-started"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = "" if visible is None else f", and CUDA_VISIBLE_DEVICES={visible!r} hides others"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        return f"torch sees {gpus} GPU{'s' if gpus > 1 else ''}{hidden}"
    return f"torch ({torch.__version__}, CUDA {version}) sees no GPU{hidden}: does `nvidia-smi` list one?"


def without_mps() -> str:
    if not torch.backends.mps.is_built():
        return f"this torch ({torch.__version__}) was built without MPS, which is for Macs with Apple silicon"
    return "torch sees no GPU of Apple's: MPS needs Apple silicon and macOS 14 or later"


def nvidia_here() -> bool:
    """Whether the system shows a GPU of NVIDIA: its driver's file on Linux and under WSL, its folder in /proc."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version"))


def fallbacks(settings: Compute, device: torch.device) -> list[str]:
    """Settings of a run that `device` cannot follow, and what is done instead: a line each."""
    lines = []
    if settings.precision == "tf32" and not has_tf32(device):
        lines.append(f"compute.precision=tf32: {device} has no TF32, so products are float32")
    if settings.precision == "bf16" and not torch.amp.is_autocast_available(device.type):
        lines.append(f"compute.precision=bf16: {device} has no automatic bfloat16, so losses are float32")
    if device.type in WITHOUT_FLOAT64:
        lines.append(f"{device} has no float64: singular values and sums of metrics are computed on the CPU")
    if device.type == "mps" and os.environ.get(MPS_FALLBACK) != "1":
        lines.append(f"an operation that {device} lacks ends the run: set {MPS_FALLBACK}=1 to compute it on the CPU")
    if device.type == "cpu" and settings.device == "auto" and torch.backends.mps.is_available():
        lines.append("compute.device=auto is the CPU on a Mac: compute.device=mps is its GPU, which is not tried yet")
    return lines


def has_tf32(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    major: Any = torch.cuda.get_device_capability(device)[0]
    return torch.version.hip is None and bool(major >= 8)
