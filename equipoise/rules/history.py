"""A pool of generated images: D is shown old images among the new (Shrivastava et al. 2017, sec. 2.3)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from equipoise.compute.distributed import rank, stack_ranks
from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import Batch, Condition, ImageSpec, component

__all__ = ["History", "Pool"]


@component
class History:
    """Show D half old and half new images: each generated image is swapped, with probability ½, for one from a pool.

    The pool holds `size` images. It first fills with new images, which D sees unchanged. A swapped image takes the
    place in the pool of the image that D sees instead (the code of Zhu et al. 2017; there size is 50 for a batch of
    one image).

    size: images in the pool, over all processes.
    """

    size: int = Field(default=50, ge=1)

    def build(self, spec: ImageSpec, seed: int = 0) -> Pool:
        return Pool(self.size, spec, seed)


class Pool(nn.Module):
    """The pool of a `History`. Its images, labels and counters are buffers, equal on every process.

    size: images it holds.  seed: for the draws, a function of (seed, number of the call).
    """

    images: Tensor
    labels: Tensor
    filled: Tensor
    calls: Tensor

    def __init__(self, size: int, spec: ImageSpec, seed: int):
        super().__init__()
        self.size, self.seed = size, seed
        self.register_buffer("images", torch.zeros(size, *spec.image))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        """Keep the two counters on the host, which reads them at every call."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.filled, self.calls = self.filled.cpu(), self.calls.cpu()
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """The images that D is shown in place of `batch`, with their labels, detached.

        Raises:
            ValueError: if D is told more about an image than a label.
        """
        if isinstance(batch.y, Condition) and (batch.y.image is not None or batch.y.code is not None):
            raise ValueError(
                "shown=History keeps images and their labels, and this D is told an image or a code as well: show it "
                "the new images (shown=none)"
            )
        label = batch.label
        x = stack_ranks(batch.x.detach()).flatten(0, 1)  # of all processes, so that all pools stay equal
        y = torch.zeros(len(x), dtype=torch.int64) if label is None else stack_ranks(label).flatten(0, 1)
        x, y = self._exchanged(x, y.to(x.device))
        share = slice(rank() * len(batch.x), (rank() + 1) * len(batch.x))
        if label is None:
            return Batch(x[share], batch.y)
        return Batch(x[share], Condition(y[share]) if isinstance(batch.y, Condition) else y[share])

    def _exchanged(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        draws = stream(self.seed, Purpose.HISTORY, int(self.calls))
        self.calls += 1
        filled = int(self.filled)
        new = min(self.size - filled, len(x))
        self.images[filled : filled + new], self.labels[filled : filled + new] = x[:new], y[:new]
        self.filled += new
        places = torch.randperm(self.size, generator=draws)[: len(x) - new]  # no place twice in one call
        chosen = torch.rand(len(places), generator=draws) < 0.5
        rows = torch.randperm(len(x) - new, generator=draws)[: len(places)] + new  # a batch may be larger than the pool
        mine = rows[chosen].to(x.device)
        theirs = places[chosen].to(x.device)
        x, y = x.clone(), y.clone()
        old = self.images[theirs], self.labels[theirs]
        self.images[theirs], self.labels[theirs] = x[mine], y[mine]
        x[mine], y[mine] = old
        return x, y
