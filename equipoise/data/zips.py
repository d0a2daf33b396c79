"""Zip files of strangers, also `.npz`: checked when they are opened, and each entry again when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import IO
from zipfile import ZipFile, ZipInfo

from .limits import check_unpacked
from .regular import printable, reason, require_regular

__all__ = ["open_entry", "open_zip"]

ENCRYPTED = 1  # bit of an entry's flags


def open_zip(file: Path | IO[bytes], where: str, kind: str = "zip file") -> ZipFile:
    """A zip without encrypted entries and without two entries of one name. kind: what it should be, for messages.

    Raises:
        ValueError: for a file that is no such zip.
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
    """An entry of a zip. Raises ValueError if it would unpack to far more than it takes in the zip."""
    check_unpacked(info.file_size, info.compress_size, printable(info.filename))
    return archive.open(info)
