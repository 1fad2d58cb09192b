"""Threads of low priority. On Linux each thread has a priority of its own, and new threads inherit it.

So ONNX Runtime's threads have low priority if their session was made on such a thread. Other systems leave all as is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["NICE", "lower", "with_low_priority"]

NICE = 10  # a thread of nice 0 gets nine times the processor time of one of nice 10
T = TypeVar("T")


def lower() -> None:
    """Give the calling thread low priority. Only a privileged process could raise it again."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))


def with_low_priority(make: Callable[[], T]) -> T:
    """The result of `make`, which runs on a thread of low priority. So do the threads that it starts."""
    with ThreadPoolExecutor(1, initializer=lower) as pool:
        return pool.submit(make).result()
