"""Networks built within bounds on the number and the bytes of their weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = ["bounded", "bytes_of", "kept_for_backward"]

MOST_WEIGHTS = 10_000
"""Most weight tensors in a network. Building this many takes a second or two; every recipe has under a tenth."""


@contextmanager
def kept_for_backward(net: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Tensors that forwards of `net` inside the block store for the backward, by address, without its weights."""
    weights = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor  # a reference, so that no later storage gets the same address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def bytes_of(kept: Mapping[int, Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class Built:
    """bytes, tensors: of the weights registered so far."""

    def __init__(self) -> None:
        self.bytes = self.tensors = 0


@contextmanager
def bounded(name: str, most_bytes: float = math.inf, reason: str = "") -> Iterator[Built]:
    """Count the weights of the network built inside the block, and stop a build that grows too large.

    Raises:
        ValueError: once the weights take more than `most_bytes`, with `reason` in the message; if there are more than
            `MOST_WEIGHTS` tensors; if a tensor has more elements than PyTorch can count.
    """
    built = Built()

    def count(module: nn.Module, key: str, weight: nn.Parameter | None) -> None:  # noqa: ARG001  (of the hook)
        if weight is None:
            return
        built.bytes += weight.numel() * weight.element_size()
        built.tensors += 1
        if built.bytes > most_bytes:
            raise ValueError(f"{name} is too large: {reason}. Give less width, depth or z_dim")
        if built.tensors > MOST_WEIGHTS:
            raise ValueError(f"{name} is too deep: it has more than {MOST_WEIGHTS} weights. Give fewer layers")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield built
    except (OverflowError, RuntimeError, TypeError) as error:
        if not overflows(error):
            raise
        raise ValueError(f"{name} is too large: a weight has over 2**63 bytes. Give less width or z_dim") from None
    finally:
        handle.remove()


def overflows(error: Exception) -> bool:
    """Whether PyTorch could not count the elements of a tensor."""
    return "overflow" in str(error).lower()
