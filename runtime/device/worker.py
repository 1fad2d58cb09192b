"""The device's background: one worker computes there at low priority, and all open frames end in time.

The worker runs whole local nets, local halves of races, and fallbacks, one after the other. Encoding and sending never
wait for it. A second thread, the timekeeper, ends frames at their deadlines, also while the worker computes. The rules
are in `Schedule`, which has no thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidesplit.runtime.core.schedule import End, Flight, Schedule
from tidesplit.runtime.device import priority
from tidesplit.runtime.device.pacer import Pacer
from tidesplit.runtime.log.record import AnsweredBy, Record

__all__ = ["Logits", "OpenFrame", "Worker"]

Logits = NDArray[np.float32]
NAP_S = 0.5  # longest wait without a look at the schedule
OVERDUE_S = 0.001  # the same where the worker should be idle by now


@dataclass
class OpenFrame:
    """An open frame, with the run by which the device can answer it and that run's time in the table."""

    record: Record
    flight: Flight
    run: Callable[[], Logits]
    expected_s: float
    answers: dict[AnsweredBy, Logits] = field(default_factory=dict)


class Worker:
    """The open frames, and the threads that run and end them.

    Args:
        pacer: times of the worker's runs.
        lock: the device's lock. The callbacks are called under it.
        end: takes a frame's record at its end, who answered it, and when.
        learn: takes the end of a run, its time in the table and its actual time.
    """

    def __init__(
        self, pacer: Pacer, lock: threading.Condition, end: Callable[[Record, AnsweredBy, float], None],
        learn: Callable[[float, float, float], None], classes: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._pacer, self._lock, self._settle, self._learn, self._classes = pacer, lock, end, learn, classes
        self._schedule = Schedule(pacer.makes_good_s)
        self._open: dict[int, OpenFrame] = {}
        self._closing = False
        parts = {"worker": self._run_all, "timekeeper": self._end_all}
        self._threads = [threading.Thread(target=part, name=name, daemon=True) for name, part in parts.items()]

    def __enter__(self) -> Worker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until all frames have their end."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def begin(self, frame: OpenFrame) -> None:
        """Take a frame that is to be sent, or whose whole net is to run. `wake` must follow."""
        with self._lock:
            self._open[frame.flight.number] = frame
            self._schedule.begin(frame.flight)

    def wake(self) -> None:
        """Let the threads look at the frames that have begun. A frame's bytes go first."""
        with self._lock:
            self._lock.notify_all()

    def record(self, number: int) -> Record | None:
        """The record of an open frame. Needs the lock."""
        frame = self._open.get(number)
        return None if frame is None else frame.record

    def answered(self, number: int, now_s: float, logits: Logits) -> None:
        """Take the server's answer to an open frame. Needs the lock."""
        self._open[number].answers["server"] = logits
        self._end(self._schedule.answered(number, now_s))

    def lost(self, number: int, now_s: float, reason: str) -> None:
        """Take the failure of an open frame's message. Needs the lock."""
        self._open[number].record.error = reason
        self._end(self._schedule.lost(number, now_s))
        self.wake()

    def busy_s(self, now_s: float) -> float:
        """Believed time until the worker is idle. Needs the lock."""
        return self._schedule.busy_s(now_s)

    def wait_until_idle(self) -> float:
        """Wait until no run is under way or due. Returns the end of the newest run."""
        with self._lock:
            while not self._schedule.idle(now_s := self._pacer.now_s()):
                self._lock.wait(min(max(self._schedule.busy_s(now_s), OVERDUE_S), NAP_S))
            return self._schedule.free_s

    def _run_all(self) -> None:
        """The worker's thread."""
        priority.lower()
        while (found := self._next()) is not None:
            frame, begun_s = found
            self._pacer.run_begins(begun_s)
            logits, error = _run(frame)
            end_s = self._pacer.end_s(begun_s, frame.expected_s)
            self._pacer.run_ends()
            with self._lock:
                self._ran(frame, begun_s, end_s, logits, error)

    def _next(self) -> tuple[OpenFrame, float] | None:
        """The next run once it is due, and the moment of its begin. None when all frames have their end."""
        with self._lock:
            while (run := self._schedule.take(self._pacer.now_s())) is None:
                if not self._nap_until(self._schedule.next_run_s()):
                    return None
            return self._open[run.number], run.begin_s

    def _ran(self, frame: OpenFrame, begun_s: float, end_s: float, logits: Logits | None, error: str | None) -> None:
        if logits is not None:
            frame.answers["device"] = logits
            self._learn(end_s, frame.expected_s, end_s - begun_s)
        if frame.flight.number in self._open:
            frame.record.local_s, frame.record.error = end_s - begun_s, error or frame.record.error
        self._end(self._schedule.ran(frame.flight.number, end_s, logits is not None))
        self._lock.notify_all()

    def _end_all(self) -> None:
        """The timekeeper's thread."""
        with self._lock:
            while self._nap_until(self._schedule.next_deadline_s()):
                while (end := self._schedule.expired(self._pacer.now_s())) is not None:
                    self._end(end)

    def _nap_until(self, at_s: float) -> bool:
        """Wait until `at_s` or until something changes. Returns False where nothing will, because the device closes."""
        if self._closing and not self._schedule.under_way:
            return False
        self._lock.wait(min(max(at_s - self._pacer.now_s(), 0.0), NAP_S))
        return True

    def _end(self, end: End | None) -> None:
        if end is None:
            return
        frame = self._open.pop(end.number)
        if end.by != "miss":
            frame.record.conclude(frame.answers[end.by], self._classes)
        self._settle(frame.record, end.by, end.at_s)
        if self._closing:
            self._lock.notify_all()


def _run(frame: OpenFrame) -> tuple[Logits | None, str | None]:
    """The logits of a run, or the reason why there are none."""
    try:
        return frame.run(), None
    except Exception as error:  # ONNX Runtime has no public class. The frame is missed, the next ones go on.
        return None, f"the device could not finish the frame: {error}"
