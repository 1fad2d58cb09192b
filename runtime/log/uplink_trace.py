"""Records the uplink while the device uses it, as a trace that `tidesplit train --trace` reads.

A row has the mean bandwidth that the device's own messages found within half a second, and the round trip without the
time of a request. A link that does not answer has 0. Where nothing was sent, the last bandwidth is repeated: it is not
known. So the trace is as fine as the messages. Delays of device and server make small ones look slower than a fast
link is. iperf3 measures that better.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tidesplit.envs.world.physics import USUAL
from tidesplit.runtime.log.outputs import Appended
from tidesplit.runtime.log.record import Record

STEP_S = 0.5  # silence after which a device without budgets sends a probe: in most bins there is a message
HELD = 8  # bins that wait for records: frames are settled some deadlines after their decision
STALLED_S = 0.5  # by which an answer is overdue where the link is down
OLD_S = 5.0  # an older answer says nothing of now
SAME_S = 0.001  # an answer whose moment differs by less is the same: ages are float32


@dataclass
class _Bin:
    """What was found within one step: seconds a byte of each message, moments without any answer, the last rtt."""

    pace: float = 0.0
    answers: int = 0
    silent: int = 0
    rtt_s: float = 0.0


class UplinkTrace:
    """Writes the trace, a row for each half second.

    Raises:
        ValueError: the file exists already, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.title = f"--record-trace {path}"
        if path.exists():
            raise ValueError(f"{self.title}: the file exists already, a new one expected: a trace has one beginning")
        self._file = Appended(path)
        begun = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        head = f"# Recorded by tidesplit edge from {begun} on, from its own messages.\ntime_s,bandwidth_mbps,rtt_ms\n"
        try:
            self._file.write(head.encode())
        except OSError as error:
            raise ValueError(f"{self.title} cannot be written: {error.strerror}") from error
        self._bins: dict[int, _Bin] = {}
        self._first: int | None = None
        self._next = 0  # bin of the next row
        self._answered_s = -1.0  # moment of the newest answer that was counted
        self._mbps = self._rtt_ms = 0.0

    def __call__(self, record: Record) -> None:
        """Take a settled frame's record. Its observation has the newest answer, also those to probes."""
        seen, now_s = record.state, record.decided_at_s
        if record.breaker != "closed" or seen["stalled_s"] > STALLED_S:
            self._bin(now_s).silent += 1
        elif (age_s := seen["goodput_age_s"]) < OLD_S and now_s - age_s > self._answered_s + SAME_S:
            self._answered_s = now_s - age_s
            found = self._bin(self._answered_s)
            found.pace += 1.0 / seen["goodput_last"]
            found.answers += 1
            found.rtt_s = seen["rtt_s"]
        while self._bins and self._next < max(self._bins) - HELD:
            self._write()

    def close(self) -> None:
        """Write the rows that wait."""
        while self._bins:
            self._write()
        self._file.close()

    def _bin(self, moment_s: float) -> _Bin:
        number = int(moment_s / STEP_S)
        if self._first is None:
            self._first = self._next = number
        return self._bins.setdefault(max(number, self._next), _Bin())

    def _write(self) -> None:
        found = self._bins.pop(self._next, _Bin())
        if found.answers:
            share = found.answers / (found.answers + found.silent)
            self._mbps = 8e-6 * share * found.answers / found.pace
            self._rtt_ms = 1e3 * max(found.rtt_s - USUAL.request_s, 0.0)
        elif found.silent:
            self._mbps = 0.0
        row = f"{(self._next - (self._first or 0)) * STEP_S:.1f},{self._mbps:.4f},{self._rtt_ms:.1f}\n"
        self._file.write(row.encode())
        self._next += 1
