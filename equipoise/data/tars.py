"""Untrusted tar files, in bounded memory and time: gzipped, read once from the beginning; or plain, by place."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Set
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .limits import check_unpacked
from .regular import open_regular, printable, reason

__all__ = ["members", "read_tar"]

READ = 1 << 14
"""Bytes to read at a time. Longer headers are refused: tarfile parses a header in quadratic time."""
MOST = 10_000
"""Most members of a gzipped archive."""
MOST_PLAIN = 10_000_000
"""Most members of a plain archive."""


def read_tar(path: Path, wanted: Set[str]) -> dict[str, bytes]:
    """The regular files whose names, without folders, are `wanted`.

    Raises:
        ValueError: for a file that is not a gzipped tar, is damaged, or unpacks to far more than its size.
    """
    contents = {}
    try:
        with open_regular(path) as raw, Unpacked(raw) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MOST:
                    raise ValueError(f"it has more than {MOST} members")
                name = Path(member.name).name
                plain = member.isreg() and not member.issparse()
                if name in wanted and plain and (part := archive.extractfile(member)) is not None:
                    contents[name] = b"".join(iter(partial(part.read, READ), b""))
    except Exception as error:  # a damaged archive makes tarfile raise nearly anything
        raise ValueError(f"{path} is not a readable .tar.gz file ({reason(error)}): copy it again") from error
    return contents


def members(path: Path) -> dict[str, tuple[int, int]]:
    """The regular files of an uncompressed tar, by name: where each begins, and its size, in bytes.

    Raises:
        ValueError: for a file that is not a tar, is cut short or damaged, or holds two files of one name.
    """
    places: dict[str, tuple[int, int]] = {}
    try:
        with open_regular(path) as raw, tarfile.open(fileobj=Plain(raw.fileno()), mode="r:") as archive:
            size = path.stat().st_size
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # or memory grows with the archive
                if not member.isreg() or member.issparse():
                    continue
                if member.name in places:
                    raise ValueError(
                        f"it holds two files of the name {printable(member.name)}: rename or remove one of them"
                    )
                if len(places) >= MOST_PLAIN:
                    raise ValueError(f"it has more than {MOST_PLAIN} members")
                if not 0 <= member.size <= size - member.offset_data:
                    raise ValueError("it is cut short")
                places[member.name] = (member.offset_data, member.size)
            raw.seek(archive.offset)
            if any(raw.read(4 * READ)):  # tarfile takes a damaged header for the end, and so does it a second archive
                raise ValueError(f"it is damaged at byte {archive.offset}, or several archives were joined: unpack it")
    except Exception as error:  # a damaged archive makes tarfile raise nearly anything
        raise ValueError(f"{path} is not a readable .tar file ({reason(error)}): copy it again") from error
    return places


class Plain(io.FileIO):
    """A tar whose headers are read, forwards alone. tarfile seeks before it reads a member."""

    def __init__(self, descriptor: int):
        super().__init__(descriptor, closefd=False)
        self.furthest = 0

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= READ:
            raise ValueError(f"it has a header of {size} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            if offset < self.furthest - 1:
                raise ValueError("its parts overlap")  # as in Unpacked
            self.furthest = offset
        return super().seek(offset, whence)


class Unpacked(gzip.GzipFile):
    """A gzipped file that refuses to unpack to far more than its size. tarfile seeks before it reads a member."""

    def __init__(self, raw: BinaryIO):
        super().__init__(fileobj=raw)
        self.packed = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= READ:
            raise ValueError(f"it has a header of {size} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            if offset < self.tell():
                raise ValueError("its parts overlap")  # negative sizes cause this, and an endless loop in tarfile
            check_unpacked(offset, self.packed, "it")
        return super().seek(offset, whence)
