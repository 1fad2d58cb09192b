"""Waits of the tests: for a condition, and never for a time in which it should hold."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 30.0  # no busy machine needs so long


def until(holds: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Return as soon as the condition holds, which other threads or processes bring about."""
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s, f"waited {limit_s:g} s"
        time.sleep(0.005)
