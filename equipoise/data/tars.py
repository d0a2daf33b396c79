"""Untrusted gzipped tar files, read once from the beginning, in bounded memory and time."""

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
from .regular import open_regular, reason

__all__ = ["read_tar"]

READ = 1 << 14
"""Bytes to read at a time. Longer headers are refused: tarfile parses a header in quadratic time."""
MOST = 10_000
"""Most members of an archive."""


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
