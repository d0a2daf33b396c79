"""Standard output and error that may fail: a run survives a closed pipe, a full disk or a lost terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

__all__ = ["Surviving", "survive", "surviving"]

STREAMS = {"stdout": 1, "stderr": 2}
"""Streams of `sys`, with their file descriptors."""


class Surviving:
    """A text stream that discards its text from the first failed write on.

    Its file descriptor then leads to the null device. So text left in buffers when the interpreter ends, and the
    output of C libraries, goes there too.
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
            self.stream.flush()  # empties its buffer


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
    """Let both streams survive in the block. Text written in it is flushed at its end."""
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
    """Open the null device in place of standard files that were closed when the process began.

    Otherwise the next opened file would get the free descriptor, and output meant for the terminal would land in it.
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
