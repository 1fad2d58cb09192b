"""The device's processor time: that of this machine, or with `--pace` that of another device of the profile.

A paced run takes as long as the other device's table says, because the rest of the time is slept. Frames, bytes and
answers stay real. Results of such runs are called emulated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Pacer", "wait"]

SPIN_S = 0.0015  # the system's sleep ends up to 1 ms late, so the last part is slept in short steps


class Pacer:
    """Begins and ends of work on one clock. If `paced`, work takes its time in the table.

    The worker's runs interrupt a head that began before them. The end of that head moves back by their time.
    """

    def __init__(self, clock: Callable[[], float], paced: bool = True) -> None:
        self.now_s = clock
        self._paced = paced
        self._lock = threading.Lock()
        self._finished_s = 0.0  # processor time of the worker's runs that have ended
        self._run_from_s: float | None = None

    def end_s(self, begun_s: float, duration_s: float) -> float:
        """End of work that nothing interrupts: now, or if paced, `duration_s` after its begin. Waits for it."""
        if not self._paced:
            return self.now_s()
        end_s = begun_s + duration_s
        wait(end_s - self.now_s())
        return end_s

    def head_end_s(self, begun_s: float, duration_s: float, taken_s: float) -> float:
        """End of a head that the worker's runs interrupt. Waits for it.

        `taken_s` is the value of `taken_s()` when the head began. Runs since then move the end back, also those during
        the real work.
        """
        if not self._paced:
            return self.now_s()
        while True:
            end_s = begun_s + duration_s + (self.taken_s() - taken_s)
            left = end_s - self.now_s()
            if left <= 0.0:
                return end_s
            wait(left)

    def taken_s(self) -> float:
        """Processor time of all runs of the worker until now."""
        with self._lock:
            under_way = 0.0 if self._run_from_s is None else self.now_s() - self._run_from_s
            return self._finished_s + under_way

    def run_begins(self, now_s: float) -> None:
        """A run of the worker takes the processor."""
        with self._lock:
            self._run_from_s = now_s

    def run_ends(self) -> None:
        """The run gives the processor back."""
        with self._lock:
            if self._run_from_s is not None:
                self._finished_s += self.now_s() - self._run_from_s
                self._run_from_s = None


def wait(duration_s: float) -> None:
    """Sleep, the last 1.5 ms in steps of 0.1 ms."""
    end = time.perf_counter() + duration_s
    if duration_s > SPIN_S:
        time.sleep(duration_s - SPIN_S)
    while (left := end - time.perf_counter()) > 0.0:
        time.sleep(min(left, 1e-4))
