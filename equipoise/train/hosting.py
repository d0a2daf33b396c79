"""A process that trains: its device, its memory, its signals, and the lock on its directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.distributed import processes
from equipoise.compute.interrupt import SAVE, Interrupt, interrupts
from equipoise.compute.terminal import surviving
from equipoise.runs import locked

from .memory import fit_or_say_so

__all__ = ["hosted"]


@contextmanager
def hosted(folder: Path, device: str) -> Iterator[tuple[torch.device, Interrupt]]:
    """A device to train on, and the signals that ask for a checkpoint. Inside the block `folder` is locked.

    device: as in `Compute`.

    Raises:
        ValueError, RunError: if the device does not exist, another process trains in `folder`, memory runs out, or
            the terminal is gone.
    """
    keep_freed_memory()
    with surviving(), interrupts(SAVE) as interrupt, processes(device) as mine, fit_or_say_so(), locked(folder):
        yield mine, interrupt
