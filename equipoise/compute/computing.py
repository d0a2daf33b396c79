"""Contexts for the parts of a training step, made from the settings and the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from .convolutions import Convolutions
from .precision import Precision, mixed, tensor_float32
from .settings import Compute

__all__ = ["Computing"]


class Computing:
    """Contexts for a step, its losses and its penalties, from `settings` and `device`.

        with computing.step():
            with computing.loss():
                loss = D(G(z)).mean()
            loss.backward()
            with computing.penalty():
                logits = D(x)

    A layer that is `recomputed` needs no context around its backward: it reopens the contexts of its forward.

    precision: precision of the losses, from the settings; for "auto", float32 until a measurement has chosen.
    convolutions: the mode that measures convolutions; None where PyTorch chooses. A measurement may replace it.
    """

    precision: Precision
    convolutions: Convolutions | None

    def __init__(self, settings: Compute, device: torch.device):
        self.settings, self.device = settings, device
        self.precision = "float32" if settings.precision == "auto" else settings.precision
        self.convolutions = Convolutions() if settings.convolutions == "measured" else None

    @contextmanager
    def step(self) -> Iterator[None]:
        """The context of a step, backwards included: choice of convolutions, precision of float32 products."""
        with self.convolutions or nullcontext(), tensor_float32(self.precision, self.device):
            yield

    def loss(self) -> AbstractContextManager[object]:
        """The context that computes a loss in `precision`. The backward runs outside it."""
        return mixed(self.precision, self.device)

    @contextmanager
    def penalty(self) -> Iterator[None]:
        """The context of a forward that is differentiated twice: not compiled, convolutions chosen for penalties."""
        eager = torch.compiler.set_stance("force_eager") if self.settings.compile else nullcontext()
        with eager, nullcontext() if self.convolutions is None else self.convolutions.for_penalties():
            yield

    def compile(self, *nets: nn.Module) -> None:
        """Compile `nets` in place if the settings ask for it. A deep copy of a network is not compiled."""
        mode = self.settings.compile
        for net in nets if mode else ():
            net.compile(mode=None if mode is True else mode)

    def images(self, x: Tensor) -> Tensor:
        """Prepare a network's output for keeping: float32, and cloned if a replayed CUDA graph would overwrite it."""
        if self.settings.replays:
            x = x.clone()
        return x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
