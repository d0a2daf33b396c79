"""Writing to disk so that a crash at any moment leaves the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .types import RunError

__all__ = ["flush", "read_json", "replace_file", "writing"]


@contextmanager
def writing(place: Path, kept: str = "") -> Iterator[None]:
    """Turns what a full disk or a read-only directory raises in the block into one clear line.

    kept: what is not lost, said after it.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors reports the system's errors as its own
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(
            f"cannot write to {place}: {reason}. Free space or choose another directory. {kept}".rstrip()
        ) from error


def flush(path: Path) -> None:
    """Wait until the file or directory at `path` is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # another process may write the same file
    try:
        temporary.write_bytes(content)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def read_json(content: bytes | str, where: str, kind: type = dict) -> Any:
    """The JSON value in `content`, which is a `kind`. where: the file, for messages.

    Raises:
        ValueError: if `content` is no JSON, is nested too deep to be read, or holds a value of another type.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ValueError(f"{where} is not readable JSON ({error}): write it anew") from None
    if not isinstance(value, kind):
        raise ValueError(f"{where} should hold a JSON {kind.__name__}, got {type(value).__name__}: write it anew")
    return value
