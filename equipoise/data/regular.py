"""Opening the files of a data set, regular files only, and naming them in messages."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["expanded", "open_regular", "printable", "reason", "require_regular"]

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def require_regular(path: Path) -> Path:
    """`path`, if it is a regular file or a link to one.

    Raises:
        ValueError: for anything else. Opening a named pipe would wait for its other end for ever.
        OSError: if there is no such file.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"{path} is {KINDS.get(kind, 'something else')}: expected a regular file")
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes. Raises as `require_regular`, and OSError if it may not be read."""
    return require_regular(path).open("rb")


def reason(error: Exception) -> str:
    """The first line of what a library says of a damaged file, without the bytes that some of them add."""
    return printable(str(error).partition("\n")[0], 500) or type(error).__name__


def printable(name: str, most: int = 300) -> str:
    """A name that a stranger gave, for a message: without line breaks and control characters, and not too long."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name[:most])


def expanded(path: str | Path) -> Path:
    """`path` with the home directory in the place of ~.

    Raises:
        ValueError: if nobody knows that directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"cannot find {path}: {error}. Give the path without ~") from None
