"""How glibc treats freed memory. Training keeps all of it, a server keeps hardly any."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8  # glibc malloc.h


def keep_heap() -> None:
    """Serve large blocks from the heap, and keep the heap.

    Otherwise the page faults of activations of 20 to 50 MB cost a quarter of a training step on a CPU.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 * 2**20})


def lean_heap() -> None:
    """Give large blocks back at once, keep few MiB besides, and let threads share their heaps.

    By default, each thread that saw a burst of large messages keeps as much memory as the burst took. Blocks of the
    size of a picture stay on the heap: page faults would make decoding it three times as long.
    """
    _set({M_ARENA_MAX: 2, M_MMAP_THRESHOLD: 640 * 2**10, M_TRIM_THRESHOLD: 4 * 2**20})


def _set(parameters: dict[int, int]) -> None:
    """Set parameters of glibc's malloc. Does nothing where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return
    for number, value in parameters.items():
        mallopt(number, value)
