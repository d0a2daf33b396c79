"""Untrusted zip files, `.npz` included: checked when opened, and each entry again when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import IO
from zipfile import ZipFile, ZipInfo

from .limits import check_unpacked
from .regular import printable, reason, require_regular

__all__ = ["open_entry", "open_zip"]

ENCRYPTED = 1  # bit of an entry's flags


def open_zip(file: Path | IO[bytes], where: str, kind: str = "zip file") -> ZipFile:
    """Open a zip, after a check for encrypted entries and for two entries of one name.

    kind: expected kind of file, for messages.

    Raises:
        ValueError: for a file that is not a readable zip, or fails the check.
        OSError: if the file is missing or may not be read.
    """
    source = require_regular(file) if isinstance(file, Path) else file
    try:
        archive = ZipFile(source)
    except Exception as error:  # a damaged directory makes zipfile raise nearly anything
        raise ValueError(f"{where} is not a readable {kind} ({reason(error)}): copy it again") from error
    entries: dict[str, ZipInfo] = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        if info.filename in entries:
            raise ValueError(
                f"{where} holds two files of the name {printable(info.filename)}: rename or remove one of them"
            )
        if info.flag_bits & ENCRYPTED:
            raise ValueError(f"{where} is encrypted ({printable(info.filename)}): unpack it with its password first")
        entries[info.filename] = info
    return archive


def open_entry(archive: ZipFile, info: ZipInfo) -> IO[bytes]:
    """Open an entry of a zip. Raises ValueError if it would unpack to far more than its size in the zip."""
    check_unpacked(info.file_size, info.compress_size, printable(info.filename))
    return archive.open(info)
