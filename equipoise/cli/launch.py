"""`torchrun` with the exit code of the command that it starts, and without a traceback when the command fails.

    python -m equipoise.cli.launch --standalone --nproc_per_node 2 -m equipoise train quickstart runs/two

takes the arguments of `torchrun`. `torchrun` itself exits with 1 and its own traceback, whatever ended a process. It is
killed by SIGUSR1, which this launcher hands to a process that trains: the run saves, and trains on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from equipoise.compute.interrupt import SAVE, handled
from equipoise.compute.terminal import survive

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `torchrun` with `arguments`, by default the command line. Returns the exit code.

    The code comes from the first process that failed by itself. It is 128 + signal if a signal ended the processes, or
    this launcher.
    """
    survive()
    try:
        with handled(hand_on, *SAVE):
            torchrun.main(arguments)
    except ChildFailedError as failed:
        return exit_code(failure.exitcode for failure in sorted(failed.failures.values(), key=lambda f: f.timestamp))
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


def exit_code(codes: Iterable[int]) -> int:
    """The code for processes that ended with `codes`, in this order; negative codes are signals.

    When one process has failed, `torchrun` ends the others with SIGTERM. So a code that a process chose goes first.
    """
    ended = list(codes)
    return next((code for code in ended if code > 0), 128 - ended[0])


def hand_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (signal.signal passes both)
    """Send a signal to the first process below this one that handles it. A process that still starts would die."""
    for pid in below(os.getpid()):
        if handles(pid, number):
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)
                return


def below(pid: int) -> Iterator[int]:
    """The processes that a process has started, and theirs, as Linux lists them."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    for child in sorted(parents.get(pid, [])):
        yield child
        yield from below(child)


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
        return bool(caught >> (number - 1) & 1)
    return False


if __name__ == "__main__":
    sys.exit(main())
