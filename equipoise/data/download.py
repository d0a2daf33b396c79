"""Download a file once into the user's cache, and check its hash."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from .regular import expanded

__all__ = ["cache_directory", "fetch"]

CHUNK = 1 << 18  # bytes
TIMEOUT = 30  # seconds without an answer


def cache_directory() -> Path:
    """Directory of downloads: $EQUIPOISE_CACHE, or ~/.cache/equipoise."""
    return expanded(os.environ.get("EQUIPOISE_CACHE") or "~/.cache/equipoise")


def fetch(
    urls: Iterable[str],
    target: Path,
    sha256: str,
    *,
    opened: Callable[[Path], IO[bytes] | gzip.GzipFile] = lambda path: path.open("rb"),
) -> Path:
    """Download the first of `urls` that works to `target`. The file appears only when complete and correct.

    opened: opens the content that is hashed; by default the file itself. With `gzip.open` the hash is of the
        uncompressed content, so that a recompressed copy passes.

    Raises:
        ValueError: if no URL works. It says what was tried and why each failed.
    """
    tried = []
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    for url in urls:
        try:
            download(url, part)
            with opened(part) as content:
                actual = digest(content)
            if actual == sha256:
                part.replace(target)
                return target
            tried.append(f"{url}: wrong SHA-256, {actual}, expected {sha256}")
        except (OSError, EOFError, zlib.error, ValueError, http.client.HTTPException) as error:  # ValueError: not a URL
            tried.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise ValueError(f"could not download {target.name}. Tried:{bullets(tried)}")


def bullets(lines: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)


def digest(file: IO[bytes] | gzip.GzipFile) -> str:
    sha256 = hashlib.sha256()
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
    return sha256.hexdigest()


def download(url: str, target: Path) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with (
        urllib.request.urlopen(url, timeout=TIMEOUT) as response,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        size = response.headers["Content-Length"]
        task = progress.add_task(target.name.removesuffix(".part"), total=int(size) if size else None)
        with target.open("wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
