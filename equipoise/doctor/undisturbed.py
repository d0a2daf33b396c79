"""A context in which networks are asked without a trace: buffers, modes and random numbers are as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(*nets: nn.Module) -> Iterator[None]:
    """Inside, `nets` may be called in any mode. Their buffers, modes and torch's random state are put back after."""
    buffers = [buffer for net in nets for buffer in net.buffers()]
    before = [buffer.clone() for buffer in buffers]
    modes = [(module, module.training) for net in nets for module in net.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        for module, training in modes:
            module.training = training
