"""Limits on the memory that a small file may unpack to. Environment variables raise them."""

from __future__ import annotations

import os

__all__ = ["PIXELS", "UNPACKED", "check_unpacked", "limit"]

UNPACKED = "EQUIPOISE_UNPACK_MB"
"""Variable: megabytes (10^6 bytes) that any compressed file may unpack to, however small; 100 if unset."""
PIXELS = "EQUIPOISE_MAX_PIXELS"
"""Variable: most pixels of a picture; Pillow's own limit, 178,956,970, if unset."""
RATIO = 100
"""A file may always unpack to this many times its size. Pictures stay far below."""


def limit(variable: str, default: int) -> int:
    """The number in an environment variable. Raises ValueError unless it is a positive integer."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or len(text) > 18 or int(text) == 0:
        raise ValueError(f"expected a positive whole number in the environment variable {variable}, got {text!r}")
    return int(text)


def check_unpacked(size: int, packed: int, where: str) -> None:
    """Refuse a decompression bomb before it is unpacked.

    size: bytes after unpacking, as the file promises.
    packed: bytes of the file.

    Raises:
        ValueError: if `size` is above `RATIO` times `packed` and above the limit `UNPACKED`.
    """
    megabytes = limit(UNPACKED, 100)
    if size > max(RATIO * packed, megabytes * 10**6):
        raise ValueError(
            f"{where} holds {packed} bytes that would unpack to {size}, more than {megabytes} MB and more than {RATIO} "
            f"times its size: leave it out, or, if you trust it, set {UNPACKED}={-(-size // 10**6)}"
        )
