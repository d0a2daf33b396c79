"""Activation checkpointing: a part of a network whose activations are computed twice instead of stored."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .convolutions import Convolutions

__all__ = ["recomputed"]


# The compiler knows checkpoints, but not with a context for the second forward.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def recomputed(part: nn.Module, *inputs: Tensor | None) -> Tensor:
    """``part(*inputs)``, which keeps its inputs alone for the backward and runs forward again there (Chen et al. 2016).

    Outputs and gradients, second ones too, are those of the plain call. So is what `part` remembers: the forward in the
    backward finds the buffers as the first one did, and leaves them as it found them. Singular vectors of a spectral
    norm move once, running statistics count a batch once, and both are right for a network that is called several
    times before its backward, as D is.

    Without gradients it is the plain call. `part` draws no random numbers: they would be others the second time.
    Convolutions are computed in the same way both times, and a compiled network leaves the part uncompiled.
    """
    if not torch.is_grad_enabled():
        out: Tensor = part(*inputs)
        return out
    before = Buffers(part)
    again: Tensor = checkpoint(
        part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), before)
    )
    return again


class Buffers:
    """The buffers of `net` as they are now: `with` puts them back for a while. As often as one likes.

    The block of `Convolutions` that is open now is opened again too, as it is: a backward runs outside of it.

    Tensors are exchanged, not overwritten: autograd holds those of batch norm, and would find them changed.
    """

    def __init__(self, net: nn.Module):
        self.places = [(module, name) for module in net.modules() for name, _ in module.named_buffers(recurse=False)]
        self.then = [getattr(module, name).clone() for module, name in self.places]
        self.convolutions = Convolutions.active[-1] if Convolutions.active else None
        self.of_inputs = self.convolutions is not None and self.convolutions.of_inputs

    def __enter__(self) -> None:
        self.opened = ExitStack()
        if self.convolutions is not None:
            self.opened.enter_context(self.convolutions)
            if self.of_inputs:
                self.opened.enter_context(self.convolutions.for_penalties())
        self.now = [getattr(module, name) for module, name in self.places]
        for (module, name), tensor in zip(self.places, self.then, strict=True):
            setattr(module, name, tensor.clone())

    def __exit__(self, *_: object) -> None:
        for (module, name), tensor in zip(self.places, self.now, strict=True):
            setattr(module, name, tensor)
        self.opened.close()
