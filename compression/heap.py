"""How glibc treats freed memory. Training keeps all of it, a server hardly any, a device what its runs need."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_S = 30.0  # between two looks for holes. Each takes 1 ms
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


@contextmanager
def packed_heap() -> Iterator[None]:
    """For the loading of models on a device: leave no holes, and give back what loading needed only for a time.

    Otherwise the parsed models lie between the weights that stay, and their memory is never given back: 20 MiB. Then
    runs take their memory from the heap again, since page faults would make each run half as long again.
    """
    _set({M_ARENA_MAX: 1, M_MMAP_THRESHOLD: 64 * 2**10})
    yield
    _set({M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 2**20})
    if libc := _glibc():
        libc.malloc_trim(0)


@contextmanager
def trimmed_heap(every_s: float = TRIM_S) -> Iterator[None]:
    """While a program runs for days: give back the pages of free memory between live blocks, from time to time.

    Otherwise such holes slowly spread over the heap, so that a process grows that holds no more than before.
    """
    libc, ended = _glibc(), threading.Event()

    def work() -> None:
        while libc and not ended.wait(every_s):
            libc.malloc_trim(0)

    threading.Thread(target=work, name="heap", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _set(parameters: dict[int, int]) -> None:
    """Set parameters of glibc's malloc. Does nothing where there is no glibc."""
    if libc := _glibc():
        for number, value in parameters.items():
            libc.mallopt(number, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc. That of musl has no such parameters."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
