"""Open the files of a data set (regular files only), and name them in messages."""

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
        ValueError: for anything else. Opening a named pipe would wait forever for its other end.
        OSError: if the file is missing.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise ValueError(f"{path} is {KINDS.get(kind, 'something else')}: expected a regular file")
    return path


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes. Raises as `require_regular`, and OSError if it may not be read."""
    return require_regular(path).open("rb")


def reason(error: Exception) -> str:
    """The first line of a library's message about a damaged file, without the raw bytes that some libraries add."""
    return printable(str(error).partition("\n")[0], 500) or type(error).__name__


def printable(name: str, most: int = 300) -> str:
    """An untrusted name, for a message: line breaks and control characters escaped, cut to `most` characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name[:most])


def expanded(path: str | Path) -> Path:
    """`path` with ~ replaced by the home directory.

    Raises:
        ValueError: if the home directory is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"cannot find {path}: {error}. Give the path without ~") from None
