"""Activation checkpointing: recompute a part's activations in the backward instead of storing them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils.checkpoint import checkpoint

__all__ = ["as_now", "recomputed"]

Opening = Callable[[], AbstractContextManager[object]]
"""A function that opens a new context at each call."""


def as_now() -> Opening:
    """An opening of the contexts that now decide how operations are computed; a null context if there are none.

    Torch function modes are asked through `torch.overrides`, as for any torch function. A mode may answer with an
    opening of itself inside the modes around it, which it gets from ``as_now()``, or let the call pass. `Convolutions`
    answers. PyTorch itself restores autocast in the second forward.
    """
    if has_torch_function((None,)):  # true without any tensor: a mode is open
        opening: Opening = handle_torch_function(as_now, ())
        return opening
    return nullcontext


# The compiler supports checkpoints, but not with a context for the second forward.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def recomputed(part: nn.Module, *inputs: Tensor | None) -> Tensor:
    """``part(*inputs)``, storing only its inputs. The backward repeats the forward (Chen et al. 2016).

    Outputs and gradients, second ones included, equal those from the plain call. So do the buffers of `part`: the
    second forward starts from the buffers that the first one saw, and leaves the current ones unchanged. A spectral
    norm's singular vectors move once, and running statistics count a batch once. This holds even if the network is
    called several times before its backward, as D is.

    Without gradients this is the plain call. `part` must not draw random numbers: they would differ the second time.
    The second forward runs inside the `Convolutions` block of the first, even if the backward runs outside that block
    or in another thread. In a compiled network the part stays uncompiled.
    """
    if not torch.is_grad_enabled():
        out: Tensor = part(*inputs)
        return out
    before = Buffers(part, as_now())
    again: Tensor = checkpoint(
        part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), before)
    )
    return again


class Buffers:
    """A snapshot of the buffers of `net`. Each `with` block sees it; afterwards the current buffers return.

    Tensors are swapped, not overwritten: autograd saves batch norm's buffers, and would find them modified.

    opening: opens a context that is also active in the block.
    """

    def __init__(self, net: nn.Module, opening: Opening):
        self.places = [(module, name) for module in net.modules() for name, _ in module.named_buffers(recurse=False)]
        self.then = [getattr(module, name).clone() for module, name in self.places]
        self.opening = opening

    def __enter__(self) -> None:
        self.opened = self.opening()
        self.opened.__enter__()
        self.now = [getattr(module, name) for module, name in self.places]
        for (module, name), tensor in zip(self.places, self.then, strict=True):
            setattr(module, name, tensor.clone())

    def __exit__(self, *error: Any) -> None:
        for (module, name), tensor in zip(self.places, self.now, strict=True):
            setattr(module, name, tensor)
        self.opened.__exit__(*error)
