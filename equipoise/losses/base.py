"""Terms: what is added to a loss."""

from __future__ import annotations

from typing import Protocol

__all__ = []


class Term(Protocol):
    """What is added to a loss: a penalty or a regulariser."""

    @property
    def every(self) -> int: ...

    def weight(self, nimg: int) -> float: ...
