"""Warm-up of MKL's vector functions: call each on one element before threads share a large tensor."""

from __future__ import annotations

import torch

__all__ = ["FUNCTIONS", "warm_up"]

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp"),
    *("log", "log10", "log2", "sin", "sqrt", "tan", "tanh", "trunc"),
)
"""torch's operations that oneMKL's vector functions compute on CPUs, in float32 and in float64 (ATen/cpu/vml.h)."""


def warm_up() -> None:
    """Call each of `FUNCTIONS` on one element, in float32 and float64. It takes a few milliseconds.

    oneMKL 2024.2, bundled with torch's packages, chooses a function's code path at its first call in a process. Threads
    that make the first call together may compute their part with a less accurate path: up to 4e-5 off in tanh, once
    (pytorch#188792). Without the warm-up, two runs of one seed would differ by chance.
    """
    for dtype in (torch.float32, torch.float64):
        x = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(x)
