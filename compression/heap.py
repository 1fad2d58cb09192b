"""What glibc does with freed memory: keep all of it while a CNN is trained, next to none of it in a server."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_heap", "lean_heap"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8  # glibc malloc.h


def keep_heap() -> None:
    """Serve large blocks from the heap and do not give it back.

    Page faults of 20 to 50 MB activations cost a quarter of a CPU training step.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20})


def lean_heap() -> None:
    """Give large blocks back at once, and let threads share their heaps.

    By default glibc keeps what a burst of large messages took, once for each thread that saw one.
    """
    _set({M_ARENA_MAX: 2, M_MMAP_THRESHOLD: 128 * 2**10})


def _set(parameters: dict[int, int]) -> None:
    """Elsewhere than under glibc: nothing."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return
    for number, value in parameters.items():
        mallopt(number, value)
