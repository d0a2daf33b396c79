"""Signals that stop a run cleanly: a flag that a loop polls, or an exception that leaves a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from equipoise.core.types import RunError

from .distributed import max_over_ranks

__all__ = ["SAVE", "STOP", "Interrupt", "Interrupted", "handled", "interrupts", "terminable"]


class Interrupted(RunError):  # noqa: N818  (a request, not an error)
    """A command was asked to stop, and stopped cleanly. `signal` is the signal's number."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = number


def existing(*names: str) -> tuple[int, ...]:
    """Numbers of those signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


STOP = existing("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU")
"""Signals that ask to save and stop."""
SAVE = existing("SIGUSR1")
"""Signals that ask to save and train on."""
ALWAYS = existing("SIGINT", "SIGTERM")
"""Signals handled even if the parent process set them to be ignored. SIGHUP stays ignored under nohup."""


class Interrupt:
    """Notes the signals that have arrived."""

    def __init__(self) -> None:
        self.noted: set[int] = set()

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (signal.signal passes both)
        if number == signal.SIGINT and number in self.noted:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.noted.add(number)

    def requested(self) -> int:
        """Number of a signal that has arrived at any process of the run; 0 if none has.

        A signal of `SAVE` is reported once.
        """
        number = max_over_ranks(max(self.noted, default=0))
        self.noted -= {number} & {*SAVE}
        return number


@contextmanager
def interrupts(numbers: Iterable[int] = (*STOP, *SAVE)) -> Iterator[Interrupt]:
    """Note these signals in the block, with the rules of `handled`."""
    interrupt = Interrupt()
    with handled(interrupt, *numbers):
        yield interrupt


@contextmanager
def terminable(message: str) -> Iterator[None]:
    """Let the signals of `STOP` end the block at once, as Ctrl-C does, so that its cleanup runs.

    Outside the main thread Python cannot set handlers, and the signals act as usual.

    Raises:
        Interrupted: with this message, after a signal other than Ctrl-C.
    """
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (signal.signal passes both)
        nonlocal asked
        if asked:
            return  # cleaning up already
        asked = number
        raise KeyboardInterrupt  # passes every `except Exception` on the way out

    with handled(stop, *(number for number in STOP if number != signal.SIGINT)):
        try:
            yield
        except KeyboardInterrupt:
            if asked:
                raise Interrupted(message, asked) from None
            raise


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Send these signals to `handler` in the block. Ignored signals stay ignored unless they are in `ALWAYS`.

    Outside the main thread Python cannot set handlers, and the signals act as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [number for number in numbers if number in ALWAYS or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
