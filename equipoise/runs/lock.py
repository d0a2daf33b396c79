"""One process per run: an advisory lock on the run's directory, which the system frees when its process ends."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from equipoise.compute.distributed import from_rank_0
from equipoise.core.files import writing
from equipoise.core.types import RunError

try:
    import fcntl
except ImportError:  # Windows lacks these locks: runs are not locked there
    LOCKS = False
else:
    LOCKS = True

__all__ = ["locked"]

NAME = ".lock"

HELD: set[int] = set()
"""Descriptors of the locks that this process holds."""


def forget_inherited() -> None:
    """Close the descriptors in a forked child: otherwise a living child would keep the lock of a killed parent."""
    for descriptor in HELD:
        os.close(descriptor)
    HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_inherited)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the lock of `run_dir` in the block, so that no other process trains there.

    All ranks call this, and rank 0 holds the lock.

    The directory is made for the lock's file, and removed if the block leaves it empty. On a file system without locks
    the block still runs, with a warning on stderr.

    Raises:
        RunError: if another process holds the lock, or the directory cannot be made. The message names the process,
            its machine and the time since when it holds the lock.
    """
    lock = Lock(run_dir)
    try:
        from_rank_0(lock.acquire)
        yield
    finally:
        lock.release()


class Lock:
    """The lock of a run's directory. It excludes other processes, and other `Lock` objects in this process."""

    def __init__(self, run_dir: Path):
        self.folder, self.path = run_dir, run_dir / NAME
        self.made: list[Path] = []
        self.descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises RunError as `locked`."""
        if not LOCKS:
            return
        if self.folder.is_dir() and not os.access(self.folder, os.W_OK):
            return  # this process cannot write there; a finished run can still be read
        with writing(self.folder):
            self.made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            while self.descriptor is None:
                self.descriptor = self.attempt()
            HELD.add(self.descriptor)
        with suppress(OSError):  # the note is for people, and a disk may be full
            os.ftruncate(self.descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %z")
            os.pwrite(self.descriptor, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)

    def attempt(self) -> int | None:
        """A locked descriptor; None if the file was removed meanwhile by the process that held the lock."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.read(descriptor, 200))
            os.close(descriptor)
            raise RunError(
                f"{self.folder} is in use by {holder or 'another process'}. Wait until it ends, stop it, or choose "
                "another directory."
            ) from None
        except OSError as error:
            print(
                f"warning: {self.folder} cannot be locked ({error.strerror}): do not start a second process in it",
                file=sys.stderr,
            )
        if self.is_at(descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def is_at(self, descriptor: int) -> bool:
        """Whether the path leads to the open file."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the lock's file, then free the lock. Remove directories that were made for the file and are empty."""
        if self.descriptor in HELD:  # a forked child has forgotten it
            with suppress(OSError):
                if self.is_at(self.descriptor):
                    self.path.unlink()
            HELD.discard(self.descriptor)
            os.close(self.descriptor)
        for path in self.made:
            with suppress(OSError):  # a directory that is not empty stays
                path.rmdir()


def printable(content: bytes) -> str:
    """The printable characters in the first line of `content`, which may hold anything."""
    lines = content.decode(errors="replace").splitlines()
    return "".join(letter for letter in lines[0] if letter.isprintable()) if lines else ""
