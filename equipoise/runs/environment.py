"""A run's environment: versions, device, threads, processes and command. Each start adds a block to environment.txt."""

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
"""Bytes read from the end of the file: many blocks, if the file is ours."""


def record(run_dir: Path, *, resumed: bool, device: torch.device) -> None:
    """Add the block of this start. Warns on stderr if a resumed run had another number of threads before.

    resumed: whether the run resumes from a checkpoint.  device: the device of this process.

    Raises:
        RunError: if the block cannot be written.
    """
    before, now = threads_before(run_dir), torch.get_num_threads()
    if resumed and before not in (None, now) and device.type == "cpu":
        print(
            f"warning: {run_dir} was trained with threads: {before} and resumes with threads: {now}. The number of "
            "threads changes how CPUs round sums: the run will differ from an uninterrupted one in the last digits. "
            f"OMP_NUM_THREADS={before} resumes it bit for bit.",
            file=sys.stderr,
        )
    path = run_dir / FILE
    with writing(path), path.open("a") as file:
        file.write(environment(device))


def threads_before(run_dir: Path) -> int | None:
    """Number of threads of the last start, read from environment.txt; None if the file does not tell."""
    path = run_dir / FILE
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return None
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            counts = re.findall(rb"^threads: (\d{1,6})\r?$", file.read(TAIL), re.MULTILINE)
    except OSError:
        return None
    return int(counts[-1]) if counts else None


def environment(device: torch.device) -> str:
    """The block of this start, one line per fact."""
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
