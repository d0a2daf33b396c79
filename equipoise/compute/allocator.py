"""Keep freed memory in the process: a training loop takes it again a moment later."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST_ON_HEAP = 32 << 20  # bytes, glibc's maximum
KEPT = 2**31 - 1  # bytes


def keep_freed_memory() -> bool:
    """Tell glibc to keep the memory that this process frees, and PyTorch to ask for large pages.

    Otherwise glibc returns an iteration's memory to the system. The next iteration takes it again, and the system fills
    the pages with zeros first. The process keeps its peak memory, up to 2 GB beyond its current need. Elsewhere than on
    Linux with glibc nothing changes. Returns whether glibc agreed.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it before its first large tensor
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none to load
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
