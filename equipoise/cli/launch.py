"""`torchrun` with the exit codes of the command that it starts, and without a traceback when that command stops.

    python -m equipoise.cli.launch --standalone --nproc_per_node 2 -m equipoise train quickstart runs/two

takes what `torchrun` takes. `torchrun` itself ends with 1 and its own traceback whatever made a process end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from equipoise.compute.terminal import survive

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `torchrun` with `arguments`, by default those of the process. Returns the exit code.

    That of the first process that failed by itself; 128 + signal if a signal ended the processes, or this one.
    """
    survive()
    try:
        torchrun.main(arguments)
    except ChildFailedError as failed:
        return exit_code(failure.exitcode for failure in sorted(failed.failures.values(), key=lambda f: f.timestamp))
    except SignalException as stop:
        return 128 + int(stop.sigval)
    return 0


def exit_code(codes: Iterable[int]) -> int:
    """The code for processes that ended with `codes`, in this order; negative codes are signals.

    `torchrun` ends the others with SIGTERM when one has failed, so a process that chose its code goes before.
    """
    ended = list(codes)
    return next((code for code in ended if code > 0), 128 - ended[0])


if __name__ == "__main__":
    sys.exit(main())
