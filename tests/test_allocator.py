"""What is freed stays with the process, where the C library can be told so."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource, torch
from equipoise.compute.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        maps = [torch.ones(1 << 22) for _ in range(8)]  # 16 MB each
        del maps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(-3, 1 << 17)  # glibc's first threshold, from which on all is given back at once
given_back = faults()
could = keep_freed_memory()
faults()
print(could, given_back, faults())
"""


def test_memory_that_is_taken_again_needs_no_new_pages():
    run = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    could, given_back, kept = run.stdout.split()
    if could == "False":
        pytest.skip("this C library cannot be told to keep what is freed")
    assert int(kept) < int(given_back) / 4
