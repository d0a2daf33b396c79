"""Ctrl-C and SIGTERM as a question the loop asks between iterations, instead of a crash in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .distributed import any_signal
from .types import RunError

__all__ = ["Interrupt", "Interrupted", "interrupts"]


class Interrupted(RunError):  # noqa: N818  (a request, not an error)
    """The run was asked to stop, and did so with everything saved. `signal` is the number of the signal."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = number


class Interrupt:
    """Notes the SIGINT or SIGTERM that has arrived."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (signal.signal passes both)
        if self.signal == signal.SIGINT == number:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.signal = number

    def requested(self) -> int:
        """The signal's number, on every process of the run; 0 if there was none."""
        return any_signal(self.signal)


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Inside the block the two signals are noted.

    Outside the main thread, where Python sets no handlers, they act as usual.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    old = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
