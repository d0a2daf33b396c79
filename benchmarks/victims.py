"""Watched commands: each in a process of its own, which can be killed or refused the disk at any moment.

A process that has imported everything forks for each command. So a command takes no time to import.
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

__all__ = [
    "PATIENCE",
    "Ended",
    "Victim",
    "descendants",
    "fingerprint",
    "full_after",
    "killed_at",
    "litter",
    "refused_at",
]

PATIENCE = 30.0
"""Seconds after which a command counts as hanging."""

OPERATIONS = frozenset({"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree"})
"""Python's audit events of operations on files. An `open` counts only if it may write."""


@dataclass(frozen=True)
class Ended:
    """The end of a command. code: its exit code, or minus the signal that ended it; None if it was still running."""

    code: int | None
    said: str
    seconds: float

    @property
    def outcome(self) -> str:
        """One of finished, one line, stopped, killed, traceback, crash, hang."""
        if self.code is None:
            return "hang"
        if "Traceback (most recent call last)" in self.said or "Fatal Python error" in self.said:
            return "traceback"
        if self.code == -signal.SIGKILL:
            return "killed"
        if self.code == 0:
            return "finished"
        if self.code in (1, 2) and "error" in self.said.lower():
            return "one line"
        return "stopped" if self.code > 128 else "crash"


class Victim:
    """`equipoise ARGUMENTS` in a fork of this process, started at once. Its output goes to the file `log`.

    before: called first in the fork.
    memory: bytes of address space that the fork may use in addition to this process's own; None: unlimited.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        before: Callable[[], None] = lambda: None,
        memory: int | None = None,
    ):
        self.log, self.start = log, time.perf_counter()
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            carry_out(arguments, log, before, memory)

    def after(self, seconds: float, number: int) -> None:
        """Send the signal `number` after `seconds` from the start, if the command still runs."""
        if self._status(self.start + seconds) is None:
            os.kill(self.pid, number)

    def end(self, patience: float = PATIENCE) -> Ended:
        """Wait until the command ends, or kill it `patience` seconds after its start."""
        status = self._status(self.start + patience)
        if status is None:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        code = None if status is None else os.waitstatus_to_exitcode(status)
        return Ended(code, self.log.read_bytes().decode(errors="replace"), time.perf_counter() - self.start)

    @property
    def running(self) -> bool:
        return self._status(0) is None

    def _status(self, deadline: float) -> int | None:
        """The wait status of the ended command; None if it still runs at the deadline."""
        while self.status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.status = status
            elif time.perf_counter() > deadline:
                break
            else:
                time.sleep(0.005)
        return self.status


def carry_out(arguments: Sequence[str], log: Path, before: Callable[[], None], memory: int | None) -> NoReturn:
    """Run the command in the fork, and end the process."""
    code = 70
    try:
        os.setsid()
        with log.open("wb") as file, Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # fresh buffers: the parent's stay the parent's
        if memory is not None:
            limit = address_space() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        sys.argv = ["equipoise", *arguments]
        before()
        code = exit_code(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def exit_code(arguments: Sequence[str]) -> int:
    """Run a command in this process. Returns its exit code."""
    from equipoise.cli.app import app

    try:
        app(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def address_space() -> int:
    """Bytes of address space that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def descendants(pid: int) -> list[int]:
    """All processes below a process: its children, and their children in turn."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family[1:]


# ---- disks that fail -------------------------------------------------------------------------------------


def at_operation(number: int, inside: Path, act: Callable[[], None]) -> None:
    """Call `act` at the operation on files under `inside` with this number, counted from 0, and at all later ones."""
    count = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        if event not in OPERATIONS or not str(args[0]).startswith(str(inside)):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        count += 1
        if count > number:
            act()

    sys.addaudithook(watch)


def killed_at(number: int, inside: Path) -> Callable[[], None]:
    """A function that makes its process die, as by `kill -9`, just before an operation on files under `inside`."""
    return lambda: at_operation(number, inside, lambda: os.kill(os.getpid(), signal.SIGKILL))


def refused_at(number: int, inside: Path) -> Callable[[], None]:
    """A function that makes the disk look full to its process, from an operation on files under `inside` on."""

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: at_operation(number, inside, full)


def full_after(size: int) -> Callable[[], None]:
    """A function that keeps its process from growing any file beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


# ---- what a run left -------------------------------------------------------------------------------------


def fingerprint(run_dir: Path) -> Mapping[str, str]:
    """SHA-256 of the files that no interruption may change: the newest checkpoint, the generators and the grids."""
    checkpoints = sorted(path for path in run_dir.glob("checkpoints/*") if path.name.isdigit() and path.is_dir())
    files = [*run_dir.glob("**/generator/*"), *run_dir.glob("samples/*")]
    for newest in checkpoints[-1:]:
        files += newest.glob("*")
    visible = (path for path in files if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(visible)}


def litter(run_dir: Path) -> list[str]:
    """Temporary files and folders that nobody removed."""
    return sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob(".*.tmp"))
