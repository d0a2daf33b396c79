"""Activation checkpointing: a part of a network whose activations are computed twice instead of stored."""

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
"""Opens a context, as often as it is called."""


def as_now() -> Opening:
    """Opens again the contexts that decide now how operations are computed; nothing where there are none.

    Torch function modes are asked by the protocol of `torch.overrides`, as for any function of torch: a mode answers
    with an opening of itself inside what ``as_now()`` tells it of the modes around it, or lets the call pass.
    `Convolutions` answers. PyTorch carries autocast to the second forward by itself.
    """
    if has_torch_function((None,)):  # of what is no tensor: a mode is open
        opening: Opening = handle_torch_function(as_now, ())
        return opening
    return nullcontext


# The compiler knows checkpoints, but not with a context for the second forward.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def recomputed(part: nn.Module, *inputs: Tensor | None) -> Tensor:
    """``part(*inputs)``, which keeps its inputs alone for the backward and runs forward again there (Chen et al. 2016).

    Outputs and gradients, second ones too, are those of the plain call. So is what `part` remembers: the forward in the
    backward finds the buffers as the first one did, and leaves them as it found them. Singular vectors of a spectral
    norm move once, running statistics count a batch once, and both are right for a network that is called several
    times before its backward, as D is.

    Without gradients it is the plain call. `part` draws no random numbers: they would be others the second time.
    The second forward computes as the first one did, inside the block of `Convolutions` that was open then, also where
    the backward runs outside of it or in another thread. A compiled network leaves the part uncompiled.
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
    """The buffers of `net` as they are now: `with` puts them back for a while. As often as one likes.

    Tensors are exchanged, not overwritten: autograd holds those of batch norm, and would find them changed.

    opening: of a context that is open in the block too.
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
