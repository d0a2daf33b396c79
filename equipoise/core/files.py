"""Atomic writes, which survive a crash with the old or the new file intact, and reads that check what they get."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .types import RunError

__all__ = [
    "flush",
    "free_name",
    "read_file",
    "read_json",
    "remove",
    "remove_litter",
    "replace_file",
    "set_aside",
    "writing",
]

LITTER = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]{1,10})\.tmp")
"""Names of the temporary files of `replace_file`."""

WINDOWS = os.name == "nt"

SMALL = 1 << 20
"""Largest size of a small text (a config, a report), in bytes."""

JSON = 1 << 28
"""Largest size of a JSON text, in characters or bytes."""


@contextmanager
def writing(place: Path, kept: str = "") -> Iterator[None]:
    """Turn a failed write in the block (full disk, read-only directory) into one clear `RunError`.

    kept: a sentence that ends the message: which work is already safe.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's errors in its own
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(
            f"cannot write to {place}: {reason}. Free space or choose another directory. {kept}".rstrip()
        ) from error


def flush(path: Path) -> None:
    """Wait until the file or directory at `path` is on disk. Windows flushes files alone, opened for writing."""
    if WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # see LITTER; another process may write the same file
    try:
        temporary.write_bytes(content)
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def remove(path: Path) -> None:
    """Delete the file or the folder at `path`, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_litter(folder: Path) -> None:
    """Delete the temporary files in `folder` whose processes were killed. A file that cannot be deleted stays."""
    with suppress(OSError):
        for path in folder.iterdir():
            match = LITTER.fullmatch(path.name)
            if match and path.is_file() and ended(int(match["pid"])):
                path.unlink(missing_ok=True)


def ended(pid: int) -> bool:
    """Whether the process that had the number `pid` has ended."""
    if pid == os.getpid():
        return True  # left by an earlier process: this one has not written yet, and containers reuse pids
    if os.name != "posix":
        return False  # os.kill ends the process there, whatever the signal
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # running, under another user
        return False
    return False


def free_name(path: Path) -> Path:
    """The first of NAME.damaged, NAME.damaged.2, NAME.damaged.3, ... that does not exist."""
    names = (f"{path.name}.damaged{'' if i == 1 else f'.{i}'}" for i in count(1))
    return next(free for free in map(path.with_name, names) if not os.path.lexists(free))


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to its `free_name`, so that nothing is lost. -> the new path."""
    aside = free_name(path)
    path.rename(aside)
    flush(path.parent)
    return aside


def read_file(path: Path, limit: int = SMALL) -> bytes:
    """The bytes of a regular file.

    Raises:
        FileNotFoundError: if the file is missing.
        OSError: if it cannot be read.
        ValueError: if it is a folder, a pipe or a device, or larger than `limit` bytes.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is not a regular file")
    if size > limit:
        raise ValueError(f"it has {size:,} bytes, and at most {limit:,} were expected")
    return path.read_bytes()


def read_json(content: bytes | str, where: str, kind: type = dict) -> Any:
    """Parse JSON and return its value, which must be a `kind`.

    where: name of the file, or of the place in it, for messages.

    Raises:
        ValueError: for bytes that are not text, text that is not JSON, nesting too deep to read, more than `JSON`
            characters, or a value of another kind.
    """
    if len(content) > JSON:
        raise ValueError(f"{where} holds {len(content):,} characters of JSON, and at most {JSON:,} are read")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{where} holds no JSON that can be read: {reason}") from None
    if not isinstance(value, kind):
        raise ValueError(f"{where} holds a JSON {type(value).__name__}, and a {kind.__name__} was expected")
    return value
