"""Memory that a training loop frees is memory that it takes again a moment later: it may stay where it is."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST_ON_HEAP = 32 << 20  # the most that glibc allows
KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep what this process frees, and PyTorch to ask for large pages. Whether it could.

    Otherwise glibc gives the maps of an iteration back to the system, which fills their pages with zeros again in the
    next one. The process holds on to the most that it ever needed, up to 2 GB beyond what it needs now. Elsewhere than
    in Linux with glibc it does nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it before its first large tensor
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_ON_HEAP)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
