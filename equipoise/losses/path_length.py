"""Path length regularisation: a step of w moves the image equally far everywhere (Karras et al. 2020, "StyleGAN2").

In your own loop, with any G that has `styles(z, y) -> ws` and `synthesis(ws)`:

    paths = PathLength()
    lengths = paths.build(G)                              # before the first step; its state_dict goes into a checkpoint
    penalty = lengths(G, z, y).mean()                     # every k-th step of G, on half a batch
    (k * paths.weight(nimg) * penalty).backward()
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.distributed import stack_ranks
from equipoise.compute.precision import without_autocast
from equipoise.core.schedules import Schedule, at
from equipoise.core.types import Batch, Told, component

from .base import Memory, Place, Seen, Term

__all__ = ["PathLength", "PathLengths", "path_lengths"]


def path_lengths(G: Any, ws: Tensor, noise: Tensor | None = None, noise_mode: str = "random") -> Tensor:
    """‖J_wᵀ y‖ for each image, (N,), differentiable in G's weights and in ws.

    J_w is the Jacobian of `G.synthesis` at ws (N, num_ws, w_dim), y is noise / √(H W). The squares of Jᵀy add up over
    w_dim, and are averaged over num_ws.

    noise: (N, C, H, W), by default from N(0, 1).
    noise_mode: of the pixel noise that `G.synthesis` adds.
    """
    ws = ws if ws.requires_grad else ws.detach().requires_grad_(True)  # frozen or given styles
    with without_autocast(ws):
        images = G.synthesis(ws, noise_mode=noise_mode)
        noise = torch.randn_like(images) if noise is None else noise
        y = noise / math.sqrt(images.shape[2] * images.shape[3])
        (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


class PathLengths(Memory):
    """The running mean a of path lengths, a buffer, equal on every process. It starts at 0.

    decay: share of the newest mean, a <- a + decay (mean length - a).
    """

    mean: Tensor

    def __init__(self, decay: float = 0.01, device: torch.device | str | None = None):
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros((), device=device))

    def forward(self, G: Any, z: Tensor, y: Told = None) -> Tensor:
        """(length - a)² for each row of z, (N,), unweighted. Moves a first: the penalty reads a's new value, through
        which its gradient runs.
        """
        ws = G.styles(z, y)
        return self.penalty(path_lengths(G, ws))

    def penalty(self, lengths: Tensor) -> Tensor:
        """(length - a)² of lengths (N,), after a has moved towards their mean over all processes."""
        mean = self.mean + self.decay * (stack_ranks(lengths.mean()).mean() - self.mean)
        self.mean = mean.detach().to(self.mean.dtype)
        return (lengths - mean).square()

    def update(self, net: nn.Module) -> None:
        """Nothing: a moves when a penalty is computed."""


@component
class PathLength(Term):
    """strength (‖J_wᵀ y‖ - a)², y random images, a the running mean of the lengths (Karras et al. 2020, sec. 3.2).

    For generators with styles. Style mixing is part of the pass, as in training. The term takes every `shrink`-th z of
    its update and draws y. Inside `LazyStep` that z is drawn for the term alone, as published; else it is the loss's.
    Where gradients reach a and the lengths, they are float32.

    decay: of the running mean.
    shrink: the batch of the penalty is 1/shrink of G's.
    """

    player = "G"
    place: ClassVar[Place] = "whole"
    whole_batch: ClassVar[bool] = True

    strength: Schedule = 2.0
    decay: float = Field(default=0.01, gt=0, le=1)
    shrink: int = Field(default=2, ge=1)
    every: int = Field(default=4, ge=1)

    def weight(self, nimg: int) -> float:
        return at(self.strength, nimg)

    def build(self, net: nn.Module) -> PathLengths:
        """The running mean, on the device of `net`."""
        return PathLengths(self.decay, next(net.parameters()).device)

    def at_work(self, net: nn.Module) -> Term:
        return PathLengthAtWork(self, self.build(net))

    def of(self, seen: Seen) -> Tensor:
        return self.at_work(seen.net).of(seen)

    def check(self, cfg: Any) -> None:
        """Raises ValueError for `PathLength` with a generator without styles: there is no w whose paths have a length.
        Use a StyleGAN generator.
        """
        super().check(cfg)
        if not cfg.generator.styled:
            raise ValueError(
                f"{self!r} measures how images change with the styles w, and {type(cfg.generator).__name__} has none: "
                "use a StyleGAN generator, or go without PathLength"
            )


class PathLengthAtWork(Term):
    """Path length regularisation with its running mean, as a term of G."""

    player = "G"
    place: ClassVar[Place] = "whole"
    memory: PathLengths

    def __init__(self, settings: PathLength, memory: PathLengths):
        self.settings, self.memory, self.every = settings, memory, settings.every

    @property
    def name(self) -> str:
        return type(self.settings).__name__

    def weight(self, nimg: int) -> float:
        return self.settings.weight(nimg)

    def of(self, seen: Seen) -> Tensor:
        n, shrink = len(seen.z), self.settings.shrink
        rows = torch.arange(max(n // shrink, 1), device=seen.z.device) * shrink  # the same z in any number of processes
        told = Batch(seen.z, seen.y).map(lambda t: t[rows])
        value: Tensor = self.memory(seen.net, told.x, told.y)
        return value.mean()
