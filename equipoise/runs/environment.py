"""A run's surroundings: versions, device, threads, processes and command, in a block of environment.txt per start."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from equipoise.compute.distributed import world_size
from equipoise.core.files import writing

__all__ = ["record", "threads_before"]

FILE = "environment.txt"
TAIL = 1 << 16
"""Bytes at the end of the file that are read: many blocks, if the file is ours."""


def record(run_dir: Path, *, resumed: bool, device: torch.device) -> None:
    """Add the block of this start, and warn on stderr if a resumed run had another number of threads before.

    resumed: whether the run resumes from a checkpoint.  device: of this process.

    Raises:
        RunError: if the block cannot be written.
    """
    before, now = threads_before(run_dir), torch.get_num_threads()
    if resumed and before not in (None, now) and device.type == "cpu":
        print(
            f"warning: {run_dir} was trained with threads: {before} and resumes with threads: {now}. CPUs round sums "
            "otherwise then, so the run will differ from the uninterrupted one in the last digits. "
            f"OMP_NUM_THREADS={before} resumes it bit for bit.",
            file=sys.stderr,
        )
    path = run_dir / FILE
    with writing(path), path.open("a") as file:
        file.write(environment(device))


def threads_before(run_dir: Path) -> int | None:
    """Threads of the last start, as environment.txt says; None if it does not say so, damaged or unreadable."""
    path = run_dir / FILE
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return None
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            found = re.findall(rb"^threads: (\d{1,6})\r?$", file.read(TAIL), re.MULTILINE)
    except OSError:
        return None
    return int(found[-1]) if found else None


def environment(device: torch.device) -> str:
    """The block of this start, a line for each fact."""
    from equipoise import __version__

    lines = {
        "equipoise": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "command": shlex.join(sys.argv),
    }
    return "".join(f"{name}: {value}\n" for name, value in lines.items()) + "\n"
