"""Ctrl-C and SIGTERM without a crash in the middle: a question that a loop asks, or a way out of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .distributed import max_over_ranks
from .types import RunError

__all__ = ["Interrupt", "Interrupted", "interrupts", "terminable"]


class Interrupted(RunError):  # noqa: N818  (a request, not an error)
    """A command was asked to stop, and did so in good order. `signal` is the number of the signal."""

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
        return max_over_ranks(self.signal)


@contextmanager
def interrupts() -> Iterator[Interrupt]:
    """Inside the block the two signals are noted.

    Outside the main thread, where Python sets no handlers, they act as usual.
    """
    interrupt = Interrupt()
    with handled(interrupt, signal.SIGINT, signal.SIGTERM):
        yield interrupt


@contextmanager
def terminable(message: str) -> Iterator[None]:
    """Inside the block SIGTERM acts at once, as Ctrl-C does: what was begun is cleaned up on the way out.

    Outside the main thread, where Python sets no handlers, it acts as usual.

    Raises:
        Interrupted: with this message, after SIGTERM.
    """
    asked = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (signal.signal passes both)
        nonlocal asked
        if asked:
            return  # cleaning up already
        asked = True
        raise KeyboardInterrupt  # which no `except Exception` on the way takes for an error of its own

    with handled(stop, signal.SIGTERM):
        try:
            yield
        except KeyboardInterrupt:
            if asked:
                raise Interrupted(message, signal.SIGTERM) from None
            raise


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Inside the block `handler` gets these signals, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, other in before.items():
            signal.signal(number, other)
