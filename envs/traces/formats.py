"""Parsers of three trace formats. The content decides which one a file is in.

| format   | content of a line                                | source                                            |
|----------|--------------------------------------------------|---------------------------------------------------|
| csv      | `time_s,bandwidth_mbps[,rtt_ms]` under a header  | this project                                      |
| mahimahi | integer ms at which one 1500-byte packet leaves  | Netravali et al., USENIX ATC 2015, mm-link(1)     |
| pensieve | `time_s throughput_mbps` separated by whitespace | Mao et al., SIGCOMM 2017, "cooked" traces         |

Blank lines and lines that begin with `#` are skipped. This module opens no file; `envs.traces.trace` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAHIMAHI_PACKET_BITS = 1500 * 8  # a line stands for one full Ethernet frame, mm-link(1)
MAHIMAHI_BIN_MS = 100  # the step of the project's measured traces
MAX_DURATION_S = 7 * 86_400.0  # a week: a wrong time stamp must not become an array of terabytes
MAX_NUMBER = 1e12  # larger than any stamp in seconds (Unix time is 2e9), Mbit/s or ms; keeps SI values finite
HEADERS = (("time_s", "bandwidth_mbps"), ("time_s", "bandwidth_mbps", "rtt_ms"))
HEADER_TEXT = "time_s,bandwidth_mbps[,rtt_ms]"


class TraceError(ValueError):
    """The user's trace cannot be used. The message is one sentence with file and line."""


class Line(NamedTuple):
    """A line with content: its place (`file, line 7`) and its stripped text."""

    where: str
    text: str


@dataclass(frozen=True)
class Samples:
    """The samples of a file in SI units, shapes `[N]`: start, bandwidth and, if given, round trip of each bin.

    `duration_s` is None where the format does not say how long the last bin is.
    """

    time_s: NDArray[np.float64]
    bandwidth_bps: NDArray[np.float64]
    rtt_s: NDArray[np.float64] | None = None
    duration_s: float | None = None


def parse(text: str, source: str) -> Samples:
    """Parse `text` in any of the three formats. `source` is the file's name in messages.

    Raises:
        TraceError: no data, an unknown format, or a line that breaks its format.
    """
    lines = list(_content(text, source))
    if not lines:
        raise TraceError(f"{source}: the file holds no data, expected a header {HEADER_TEXT} and at least one row.")
    first = lines[0].text
    if "," in first or not _is_number(first.split()[0]):
        return _parse_csv(lines)
    columns = len(first.split())
    if columns == 1:
        return _parse_mahimahi(lines)
    if columns == 2:
        return _parse_pensieve(lines)
    raise TraceError(
        f"{lines[0].where}: got {columns} columns, expected a header {HEADER_TEXT}, one integer in ms (mahimahi) "
        f"or two columns time_s and Mbit/s (Pensieve)."
    )


def _content(text: str, source: str) -> Iterator[Line]:
    for number, raw in enumerate(text.splitlines(), start=1):
        stripped = raw.strip()
        if stripped and not stripped.startswith("#"):
            yield Line(f"{source}, line {number}", stripped)


def _parse_csv(lines: list[Line]) -> Samples:
    header = tuple(cell.strip() for cell in lines[0].text.split(","))
    if header not in HEADERS:
        raise TraceError(f"{lines[0].where}: got the header '{_short(lines[0].text)}', expected {HEADER_TEXT}.")
    if len(lines) == 1:
        raise TraceError(f"{lines[0].where}: got a header and no rows, expected at least one row of {HEADER_TEXT}.")
    rows = _rows(lines[1:], header, separator=",")
    _check_forward(rows[:, 0], lines[1:])
    rtt_s = rows[:, 2] / 1e3 if len(header) == 3 else None
    return Samples(rows[:, 0] - rows[0, 0], rows[:, 1] * 1e6, rtt_s)


def _parse_pensieve(lines: list[Line]) -> Samples:
    """Bins as Pensieve's simulator plays them: a row holds from the time of the row before to its own.

    So the bandwidth of the first row is never used. Source: `fixed_env.py` of hongzimao/pensieve.
    """
    rows = _rows(lines, HEADERS[0], separator=None)
    _check_forward(rows[:, 0], lines)
    if len(rows) == 1:
        raise TraceError(
            f"{lines[0].where}: got a single row, expected at least two: a row holds from the time before (Pensieve)."
        )
    time_s = rows[:, 0] - rows[0, 0]
    return Samples(time_s[:-1], rows[1:, 1] * 1e6, duration_s=float(time_s[-1]))


def _parse_mahimahi(lines: list[Line]) -> Samples:
    """Count the packets of the period (0, last stamp] in bins of `MAHIMAHI_BIN_MS`.

    mahimahi repeats the file with that period. So the last bin ends with it: it is shorter, or longer if less than half
    a bin would remain. No bit is lost or added.
    """
    stamps = np.array([_milliseconds(line) for line in lines], dtype=np.int64)
    back = np.flatnonzero(np.diff(stamps) < 0)
    if back.size:
        at = int(back[0]) + 1
        raise TraceError(
            f"{lines[at].where}: time runs back to {stamps[at]} ms, expected at least {stamps[at - 1]} ms."
        )
    period_ms = int(stamps[-1])
    if period_ms == 0:
        raise TraceError(f"{lines[-1].where}: the last packet is at 0 ms, expected a period of at least 1 ms.")
    bins = max(1, round(period_ms / MAHIMAHI_BIN_MS))
    edges_ms = np.append(np.arange(bins) * MAHIMAHI_BIN_MS, period_ms)
    index = np.clip(-(-stamps // MAHIMAHI_BIN_MS) - 1, 0, bins - 1)  # bin k holds (100 k, 100 (k + 1)]
    bits = np.bincount(index, minlength=bins) * MAHIMAHI_PACKET_BITS
    bandwidth_bps = bits / (np.diff(edges_ms) / 1e3)
    return Samples(edges_ms[:-1] / 1e3, bandwidth_bps.astype(np.float64), duration_s=period_ms / 1e3)


def _milliseconds(line: Line) -> int:
    if not (line.text.isascii() and line.text.isdigit()):
        raise TraceError(f"{line.where}: got '{_short(line.text)}', expected one integer in ms, 0 or more (mahimahi).")
    if len(line.text) > 18 or int(line.text) > MAX_DURATION_S * 1e3:
        raise TraceError(f"{line.where}: got {_short(line.text)} ms, expected at most {MAX_DURATION_S * 1e3:.0f} ms.")
    return int(line.text)


def _rows(lines: list[Line], names: tuple[str, ...], separator: str | None) -> NDArray[np.float64]:
    """Numbers of all lines, shape `[N, len(names)]`. All are finite, and only time may be negative."""
    rows = np.empty((len(lines), len(names)))
    for row, line in enumerate(lines):
        cells = line.text.split(separator)
        if len(cells) != len(names):
            raise TraceError(f"{line.where}: got {len(cells)} columns, expected {len(names)} ({', '.join(names)}).")
        for column, (name, cell) in enumerate(zip(names, cells, strict=True)):
            rows[row, column] = _number(cell.strip(), name, line.where)
    return rows


def _number(cell: str, name: str, where: str) -> float:
    if not _is_number(cell):
        raise TraceError(f"{where}: got {name} '{_short(cell)}', expected a number.")
    value = float(cell)
    if not math.isfinite(value):
        raise TraceError(f"{where}: got {name} {value}, expected a finite number.")
    if value < 0 and name != "time_s":
        raise TraceError(f"{where}: got {name} {cell}, expected 0 or more.")
    if abs(value) > MAX_NUMBER:
        raise TraceError(f"{where}: got {name} {cell}, expected at most {MAX_NUMBER:g}.")
    return value


def _check_forward(time_s: NDArray[np.float64], lines: list[Line]) -> None:
    back = np.flatnonzero(np.diff(time_s) <= 0)
    if back.size:
        at = int(back[0]) + 1
        raise TraceError(
            f"{lines[at].where}: time goes from {time_s[at - 1]:g} s to {time_s[at]:g} s, expected it to increase."
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
