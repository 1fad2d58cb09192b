"""Outputs for settled frames: JSON lines, one line in the terminal, TensorBoard. Writing never delays a frame.

Each output has a thread and a bounded queue, so that one that fails or hangs takes no other with it.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from typing import IO

import numpy as np

from tidesplit.runtime.camera.picture import Say
from tidesplit.runtime.log.record import Record

REFRESH_S = 0.5
RATE_EVERY = 8  # frames between two looks at the camera's rate
RECENT = 150  # frames in the terminal's figures: five seconds at 30 fps
WAITING = 1024  # records that wait for one output, some 3 MB without their answers. More are lost, and counted
WAITING_BYTES = 32 << 20  # of the answers of records that wait for one output
RATE_S, RATE_OFF = 2.0, 0.03  # a camera's rate is measured over so long, and said if it is off the demand's by more
PAUSE = 3.0  # a picture that comes so many times later than usual ends a pause
RETRY_S = 5.0  # between attempts of an output that failed
END_S = 5.0  # for the outputs to write what waits when the program ends
Sink = Callable[[Record], None]


def say(text: str) -> None:
    """Write a line for the user to the standard error output, if there still is one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            begin = "\r\x1b[K" if sys.stderr.isatty() else ""  # over the live line
            sys.stderr.write(f"{begin}tidesplit edge: {text}\n")
            sys.stderr.flush()


class Log:
    """Passes records to every sink, in the order in which frames were settled.

    A sink's `title` names it where it fails, and its `close` is called at the end. Both are optional.
    """

    def __init__(self, sinks: Iterable[Sink], say: Say = say) -> None:
        self._lanes = [_Lane(sink, say) for sink in sinks]

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        for lane in self._lanes:
            lane.put(record)

    def __enter__(self) -> Log:
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, *_: object) -> None:
        end_s = time.monotonic() + END_S
        for lane in self._lanes:
            lane.end()
        for lane in self._lanes:
            lane.wait(max(0.0, end_s - time.monotonic()))


class _Lane:
    """One sink, the records that wait for it, and the thread that writes them."""

    def __init__(self, sink: Sink, say: Say) -> None:
        self._sink, self._say = sink, say
        self._title = getattr(sink, "title", "an output of the log")
        self._waiting: deque[Record] = deque()
        self._changed = threading.Condition()
        self._lost = self._bytes = 0
        self._ended = self._failing = False
        self._again_s = 0.0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self.start = self._thread.start

    def put(self, record: Record) -> None:
        """Take a record. It is lost where too many wait."""
        size = _size(record)
        with self._changed:
            if len(self._waiting) < WAITING and self._bytes + size <= WAITING_BYTES:
                self._waiting.append(record)
                self._bytes += size
                self._changed.notify()
            else:
                self._lost += 1

    def end(self) -> None:
        """Write what waits, then close the sink."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def wait(self, limit_s: float) -> None:
        """Wait for that, at most `limit_s`."""
        self._thread.join(limit_s)
        if lost := self._lost + len(self._waiting):
            self._say(f"{self._title}: {lost} frames are missing in it")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
            self._write(self._waiting[0])
            with self._changed:
                self._bytes -= _size(self._waiting.popleft())
        with contextlib.suppress(Exception):
            getattr(self._sink, "close", lambda: None)()

    def _write(self, record: Record) -> None:
        if time.monotonic() < self._again_s:
            self._lost += 1
            return
        try:
            self._sink(record)
        except Exception as error:  # of any kind: a sink's failure must not end the others
            self._lost += 1
            self._again_s = time.monotonic() + RETRY_S
            if not self._failing:
                self._say(f"{self._title}: {error}. Frames go on; it is tried again every {RETRY_S:.0f} s")
            self._failing = True
            return
        if self._failing:
            self._say(f"{self._title} works again, {self._lost} frames are missing in it so far")
        self._failing = False


def _size(record: Record) -> int:
    """Bytes of its answer."""
    return 0 if record.values is None else record.values.nbytes


class Live:
    """One line in the terminal on the last five seconds. Without a terminal, a new line every 5 s."""

    title = "the terminal"

    def __init__(self, title: str, out: IO[str] | None = None, every_s: float | None = None) -> None:
        self._out = out or sys.stderr  # None where the program was started without one
        self._prefix, self._terminal = title, self._out is not None and self._out.isatty()
        self._every_s = every_s or (REFRESH_S if self._terminal else 5.0)
        self._recent: deque[tuple[float, Record]] = deque(maxlen=RECENT)
        self._shown_s = -np.inf
        self._shown_errors: set[str] = set()  # since the link last worked
        self._warned = False

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        now_s = time.perf_counter()
        kept = copy(record)
        kept.values = None  # an answer may have a megabyte
        self._recent.append((now_s, kept))
        if record.error is None and record.breaker == "closed":
            self._shown_errors.clear()
        elif record.error and record.error not in self._shown_errors:
            self._shown_errors.add(record.error)
            self._print(f"server: {record.error}\n")
        self._compare_rates(record)
        if now_s - self._shown_s >= self._every_s:
            self._shown_s = now_s
            self._print(self.text() + ("" if self._terminal else "\n"))

    def _compare_rates(self, record: Record) -> None:
        """Warn once where the camera's rate is not the demand's."""
        if self._warned or record.picture_age_s is None or record.frame % RATE_EVERY:
            return
        fps, span_s = _camera_rate([r for _, r in self._recent])
        if span_s >= RATE_S and abs(fps / record.demand.fps - 1.0) > RATE_OFF:
            self._warned = True
            much = "pictures are skipped" if fps > record.demand.fps else "frames arrive at its rate"
            self._print(f"the camera gives {fps:.1f} pictures a second, {record.demand.fps:g} expected: {much}\n")

    def text(self) -> str:
        """The line, with figures of the last `RECENT` frames."""
        records = [record for _, record in self._recent]
        span_s = max(self._recent[-1][0] - self._recent[0][0], 1e-3)
        latency = np.array([r.latency_s for r in records if r.answered_by != "miss"])
        median = f"{1e3 * np.median(latency):.0f} ms" if latency.size else "no answers"
        missed = np.mean([r.answered_by == "miss" for r in records])
        last = records[-1]
        return (
            f"{self._prefix}frame {last.frame}  {(len(records) - 1) / span_s:.0f} fps  median {median}  "
            f"missed {100 * missed:.0f} %  uplink {8e-6 * last.state['goodput']:.2f} Mbit/s  "
            f"{last.decision}  {last.breaker}{_budgets(last)}{_pictures(records)}"
        )

    def _print(self, text: str) -> None:
        if self._out is not None:
            self._out.write(("\r\x1b[K" if self._terminal else "") + text)
            self._out.flush()


def _camera_rate(records: list[Record]) -> tuple[float, float]:
    """Pictures a second of a live camera, with those passed over, and the time over which they came, without pauses."""
    live = sorted((r for r in records if r.picture_age_s is not None), key=lambda r: r.frame)
    came_s = np.array([r.arrival_s + r.waited_s - (r.picture_age_s or 0.0) for r in live])
    pictures = np.array([1 + r.pictures_skipped for r in live])[1:]
    between_s = np.diff(came_s)
    if not between_s.size:
        return 0.0, 0.0
    steady = between_s <= PAUSE * pictures * np.median(between_s / pictures)
    span_s = float(between_s[steady].sum())
    return (float(pictures[steady].sum()) / span_s if span_s > 0.0 else 0.0), span_s


def _budgets(record: Record) -> str:
    """Means since the start beside their budgets."""
    if (spent := record.spending) is None:
        return ""
    texts = (spent.energy(record.demand), spent.data(record.demand))
    return "".join(f"  {text}" for text in texts if text)


def _pictures(records: list[Record]) -> str:
    """The rate of a live camera, the age of its pictures, and how many were passed over."""
    fps, _ = _camera_rate(records)
    ages = [r.picture_age_s for r in records if r.picture_age_s is not None]
    skipped = sum(r.pictures_skipped for r in records)
    age = f"  pictures {1e3 * np.median(ages):.0f} ms old" if ages else ""
    return (f"  camera {fps:.1f} fps" if fps else "") + age + (f"  {skipped} pictures skipped" if skipped else "")
