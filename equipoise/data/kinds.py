"""Files beside pictures: those that systems make, and those that are left out, with the way to use them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from equipoise.core.extras import install

from .regular import printable

__all__ = ["HEIC", "PACKED", "left_out", "outside", "visible"]

IGNORED = {
    *("__macosx", "icon\r"),  # macOS; .DS_Store and ._* are hidden
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),  # Windows
    *("@eadir", "#recycle", "@recycle", "#snapshot"),  # network storage of Synology and QNAP; .@__thumb is hidden
    "lost+found",
}
"""Names of files and folders that systems make, in lower case."""

HEIC = (".heic", ".heics", ".heif", ".heifs", ".hif")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")
"""Archives that cannot be read at any place without unpacking all before it."""

ADVICE = (
    ((".svg", ".svgz", ".eps", ".ps", ".pdf", ".ai", ".wmf", ".emf"), "drawings have no pixels: export them as PNG"),
    (HEIC, f"HEIC needs pillow-heif: {install('heic')}"),
    (
        (
            ".cr2",
            ".cr3",
            ".crw",
            ".nef",
            ".nrw",
            ".arw",
            ".sr2",
            ".dng",
            ".orf",
            ".rw2",
            ".raf",
            ".pef",
            ".srw",
            ".raw",
        ),
        "camera raw has to be developed first: export it as JPEG or TIFF",
    ),
    ((".avif", ".avifs"), "AVIF needs Pillow 11.3 or later"),
    ((".jxl",), "JPEG XL is unknown to Pillow: convert it to PNG"),
    ((".mp4", ".mov", ".avi", ".mkv", ".webm"), "films are not read: save their frames as pictures"),
    ((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"), "archives within are not read: unpack them"),
)
"""Endings, and what to do with such files."""


def visible(name: str) -> bool:
    """Whether no part of the path is hidden, or made by a system."""
    return not any(part.startswith(".") or part.lower() in IGNORED for part in PurePosixPath(name).parts)


def outside(name: str) -> bool:
    """Whether the name of a file in an archive points out of it: ../../a.png."""
    return ".." in PurePosixPath(name.replace("\\", "/")).parts


def left_out(names: Sequence[str]) -> str:
    """A sentence about files that are not read: "left out 3 files: 2 .svg (a.svg, ...), 1 .txt (b.txt). ..."."""
    by_ending: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_ending["that point outside" if outside(name) else PurePosixPath(name).suffix.lower()].append(name)
    kinds = sorted(by_ending.items(), key=lambda kind: -len(kind[1]))
    shown = [f"{len(files)} {printable(end, 20) or 'without an ending'} ({example(files)})" for end, files in kinds[:6]]
    more = f" and {len(kinds) - 6} more kinds" if len(kinds) > 6 else ""
    advice = [text for endings, text in ADVICE if not by_ending.keys().isdisjoint(endings)]
    files = "1 file" if len(names) == 1 else f"{len(names)} files"
    return f"left out {files}: {', '.join(shown)}{more}" + "".join(f". {text[0].upper()}{text[1:]}" for text in advice)


def example(names: Sequence[str]) -> str:
    return printable(names[0], 60) + (", ..." if len(names) > 1 else "")
