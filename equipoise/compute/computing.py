"""How a step of training computes: the contexts of its parts, made from the settings and the device."""

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
    """`settings` on `device`, as contexts: of a step, of its losses, of its penalties.

        with computing.step():
            with computing.loss():
                loss = D(G(z)).mean()
            loss.backward()
            with computing.penalty():
                logits = D(x)

    A layer that is `recomputed` in the backward needs none of it: it asks what was open in its forward.

    precision: of the losses. That of the settings; float32 for "auto" until a measurement has chosen.
    convolutions: the mode that measures them, None where PyTorch chooses. A measurement may exchange it.
    """

    precision: Precision
    convolutions: Convolutions | None

    def __init__(self, settings: Compute, device: torch.device):
        self.settings, self.device = settings, device
        self.precision = "float32" if settings.precision == "auto" else settings.precision
        self.convolutions = Convolutions() if settings.convolutions == "measured" else None

    @contextmanager
    def step(self) -> Iterator[None]:
        """The context of a whole step, backwards included: its convolutions, and its products of float32 numbers."""
        with self.convolutions or nullcontext(), tensor_float32(self.precision, self.device):
            yield

    def loss(self) -> AbstractContextManager[object]:
        """The context in which a loss is computed, in `precision`; its backward is not."""
        return mixed(self.precision, self.device)

    @contextmanager
    def penalty(self) -> Iterator[None]:
        """The context of a forward that is differentiated twice: eager, by convolutions that are made for it."""
        eager = torch.compiler.set_stance("force_eager") if self.settings.compile else nullcontext()
        with eager, nullcontext() if self.convolutions is None else self.convolutions.for_penalties():
            yield

    def compile(self, *nets: nn.Module) -> None:
        """Compile `nets` in place, where the settings ask for it. A deep copy of a network loses it."""
        mode = self.settings.compile
        for net in nets if mode else ():
            net.compile(mode=None if mode is True else mode)

    def images(self, x: Tensor) -> Tensor:
        """Images, or what else a network has just made, to be kept: in float32, where no replay overwrites it."""
        if self.settings.replays:
            x = x.clone()
        return x.to(torch.promote_types(x.dtype, torch.float32)) if x.is_floating_point() else x
