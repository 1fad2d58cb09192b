"""Outputs for settled frames: JSON lines, one line in the terminal, TensorBoard. Writing never delays a frame."""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from tidesplit.runtime.device.record import Record

__all__ = ["Board", "Live", "Log", "Sink", "json_lines"]

REFRESH_S = 0.5
RECENT = 150  # frames in the terminal's figures: five seconds at 30 fps
Sink = Callable[[Record], None]


class Log:
    """Passes records to sinks on a thread of its own, in the order in which frames were settled."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks
        self._waiting: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        self._waiting.put(record)

    def __enter__(self) -> Log:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (record := self._waiting.get()) is not None:
            for sink in self._sinks:
                sink(record)


def json_lines(file: IO[str]) -> Sink:
    """A sink that writes one JSON object a line and flushes each, so that a crash loses no earlier line."""

    def write(record: Record) -> None:
        file.write(json.dumps(record.as_json()) + "\n")
        file.flush()

    return write


class Live:
    """One line in the terminal on the last five seconds. Without a terminal, a new line every 5 s."""

    def __init__(self, title: str, out: IO[str] = sys.stderr, every_s: float | None = None) -> None:
        self._title, self._out = title, out
        self._every_s = every_s or (REFRESH_S if out.isatty() else 5.0)
        self._recent: deque[tuple[float, Record]] = deque(maxlen=RECENT)
        self._shown_s = -np.inf
        self._shown_error: str | None = None

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        now_s = time.perf_counter()
        self._recent.append((now_s, record))
        if record.error and record.error != self._shown_error:
            self._shown_error = record.error
            self._print(f"server: {record.error}\n")
        if now_s - self._shown_s >= self._every_s:
            self._shown_s = now_s
            self._print(self.text() + ("" if self._out.isatty() else "\n"))

    def text(self) -> str:
        """The line, with figures of the last `RECENT` frames."""
        records = [record for _, record in self._recent]
        span_s = max(self._recent[-1][0] - self._recent[0][0], 1e-3)
        latency = np.array([r.latency_s for r in records if r.answered_by != "miss"])
        median = f"{1e3 * np.median(latency):.0f} ms" if latency.size else "no answers"
        missed = np.mean([r.answered_by == "miss" for r in records])
        last = records[-1]
        return (
            f"{self._title}frame {last.frame}  {(len(records) - 1) / span_s:.0f} fps  median {median}  "
            f"missed {100 * missed:.0f} %  uplink {8e-6 * last.state['goodput']:.2f} Mbit/s  "
            f"{last.decision}  {last.breaker}"
        )

    def _print(self, text: str) -> None:
        self._out.write(("\r\x1b[K" if self._out.isatty() else "") + text)
        self._out.flush()


class Board:
    """Writes figures over time for TensorBoard.

    Raises:
        ImportError: TensorBoard, of the extra `train`, is not installed.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer: Any = EventFileWriter(str(folder))

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record."""
        figures = {
            "latency_ms": 1e3 * min(record.latency_s, record.demand.deadline_s),
            "missed": float(record.answered_by == "miss"),
            "answered_by_server": float(record.answered_by == "server"),
            "utility": record.utility,
            "bytes": float(record.sent_bytes),
            "uplink_mbps": 8e-6 * record.state["goodput"],
            "decision_row": float(record.row),
        }
        values = [self._summary.Value(tag=f"edge/{name}", simple_value=value) for name, value in figures.items()]
        summary = self._summary(value=values)
        self._writer.add_event(self._event(wall_time=time.time(), step=record.frame, summary=summary))

    def close(self) -> None:
        """Write all buffered figures."""
        self._writer.close()
