"""Standard output and error that may die: a closed pipe, a full disk or a terminal that is gone ends no run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["Surviving", "survive", "surviving"]

STREAMS = {"stdout": 1, "stderr": 2}
"""Of `sys`, with their file descriptors."""


class Surviving:
    """A text stream whose first failed write sends this and all that follows to nowhere.

    Its file descriptor then leads to the null device. So what is left in buffers at the interpreter's end, and what
    libraries in C write, goes there too.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:  # a terminal without this letter
            encoding = self.stream.encoding
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError:
            self.discard()
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError:
            self.discard()

    def discard(self) -> None:
        with suppress(OSError, ValueError):  # ValueError: closed, or a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
            self.stream.flush()  # what it still held


def survive() -> None:
    """Let `sys.stdout` and `sys.stderr` survive to the end of the process."""
    open_standard_files()
    for name, descriptor in STREAMS.items():
        if getattr(sys, name) is None:  # closed before Python began
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
    wrap()


def wrap() -> None:
    for name in STREAMS:
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Surviving):
            setattr(sys, name, Surviving(stream))


@contextmanager
def surviving() -> Iterator[None]:
    """Let both survive in the block, and until the interpreter's end what was written in it."""
    before = {name: getattr(sys, name) for name in STREAMS}
    wrap()
    try:
        yield
    finally:
        for name, stream in before.items():
            if (now := getattr(sys, name)) is not None:
                now.flush()
            setattr(sys, name, stream)


def open_standard_files() -> None:
    """Open the null device in the place of standard files that were closed when the process began.

    The next file to be opened would get the free number, and in it would land what is meant for the terminal.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)  # as standard files are
