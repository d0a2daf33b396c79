"""A process that trains: its device, its memory, its signals, and the lock on its directory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from equipoise.compute.allocator import keep_freed_memory
from equipoise.compute.devices import fallbacks
from equipoise.compute.distributed import processes, speaks
from equipoise.compute.interrupt import SAVE, Interrupt, interrupts
from equipoise.compute.settings import Compute
from equipoise.compute.terminal import surviving
from equipoise.runs import locked

from .memory import fit_or_say_so

__all__ = ["hosted"]


@contextmanager
def hosted(folder: Path, settings: Compute) -> Iterator[tuple[torch.device, Interrupt]]:
    """A device to train on, and the signals that ask for a checkpoint. Inside the block `folder` is locked.

    Settings that the device cannot follow are named on stderr, with what is done instead.

    Raises:
        ValueError, RunError: if the device does not exist, another process trains in `folder`, memory runs out, or
            the terminal is gone.
    """
    keep_freed_memory()
    with (
        surviving(),
        interrupts(SAVE) as interrupt,
        processes(settings.device) as mine,
        fit_or_say_so(),
        locked(folder),
    ):
        for line in fallbacks(settings, mine) if speaks() else ():
            print(line, file=sys.stderr)
        yield mine, interrupt
