"""`torchrun` with the exit code of the command that it starts, and without a traceback when the command fails.

    python -m equipoise.cli.launch --standalone --nproc_per_node 2 -m equipoise train quickstart runs/two

takes the arguments of `torchrun`. `torchrun` itself exits with 1 and its own traceback, whatever ended a process.
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
    """Run `torchrun` with `arguments`, by default the command line. Returns the exit code.

    The code comes from the first process that failed by itself. It is 128 + signal if a signal ended the processes, or
    this launcher.
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

    When one process has failed, `torchrun` ends the others with SIGTERM. So a code that a process chose goes first.
    """
    ended = list(codes)
    return next((code for code in ended if code > 0), 128 - ended[0])


if __name__ == "__main__":
    sys.exit(main())
