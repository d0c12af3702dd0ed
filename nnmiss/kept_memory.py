"""Keeps freed memory in the process, so that a training on the CPU does not ask Linux for the same pages in every step."""
from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3); -1 is no limit. What is given back later has the values that glibc itself comes to with large blocks.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEEP = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
GIVE_BACK = {M_MMAP_MAX: 65536, M_TRIM_THRESHOLD: 64 * 2**20, M_MMAP_THRESHOLD: 32 * 2**20}


@contextmanager
def freed_memory_kept(wanted: bool = True) -> Iterator[bool]:
    """While open, the C library reuses large freed blocks instead of giving them back; says whether it does.

    glibc maps every block above 32 MB anew, and Linux then clears and enters each of its pages on first use. A training
    step frees and asks for the same tensors again and again; beyond 32 MB this took up to a fifth of its time
    (documentation/reference/performance.md). As blocks do not always fit where freed ones lay, the process holds about a
    third more meanwhile. Not for work on cases of different sizes. C libraries other than glibc are left alone.

    Args:
        wanted: False: nothing is done.
    """
    if not wanted or platform.libc_ver()[0] != "glibc":
        yield False
        return
    library = ctypes.CDLL(None)
    try:
        yield min(library.mallopt(*setting) for setting in KEEP.items()) == 1
    finally:
        for setting in GIVE_BACK.items():
            library.mallopt(*setting)
        library.malloc_trim(0)
