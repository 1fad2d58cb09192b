"""Tests of exact timing, on a machine that may be too busy for it.

No assertion is relaxed. A test that fails while the process was woken late, or while more processes want to run than
there are cores, runs again. If the machine stays busy, the test is skipped with the lateness in its reason. On a
punctual machine the second failure counts: servers of other tests may still be ending during the first.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import ParamSpec

import numpy as np
import pytest

ATTEMPTS = 3
# A frame needs about ten wake-ups. If one wake-up in thirty is late, every third frame is: more than the tests allow.
LATE_S = 0.003
SHARE = 97.0
NAP_S = 0.004
P = ParamSpec("P")


class Lateness:
    """Measures how late this process is woken while the block runs."""

    def __enter__(self) -> Lateness:
        self._late: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            begun_s = time.perf_counter()
            time.sleep(NAP_S)
            self._late.append(time.perf_counter() - begun_s - NAP_S)

    @property
    def usual_s(self) -> float:
        """The lateness that one wake-up in thirty exceeds."""
        return float(np.percentile(self._late, SHARE)) if self._late else 0.0


def on_time(test: Callable[P, None]) -> Callable[P, None]:
    """Repeat or skip a test whose assertions fail on a busy machine. It gets the mark `timing`."""

    @functools.wraps(test)
    def judged(*args: P.args, **kwargs: P.kwargs) -> None:
        for attempt in range(ATTEMPTS):
            with Lateness() as lateness:
                try:
                    test(*args, **kwargs)
                except AssertionError as error:
                    failure = error
                else:
                    return
            if attempt and lateness.usual_s < LATE_S and os.getloadavg()[0] <= (os.cpu_count() or 1):
                raise failure
        pytest.skip(f"this machine is too busy to judge: a wake-up in thirty was {1e3 * lateness.usual_s:.0f} ms late")

    return pytest.mark.timing(judged)
