"""Keep freed memory in the process: page faults of 20 to 50 MB activations cost a quarter of a CPU training step."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_heap"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # glibc malloc.h


def keep_heap() -> None:
    """Tell glibc to serve large blocks from the heap and not to give it back. Elsewhere: nothing."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 64 * 2**20)
