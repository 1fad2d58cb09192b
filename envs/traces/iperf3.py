"""Reads the JSON that iperf3 writes (``iperf3 -c HOST -J`` or ``--json-stream``) as a trace of the uplink.

One bin for each interval that iperf3 reports (``-i 0.1`` for tenths of a second); those of ``-O`` are left out. The
receiver's intervals are preferred: client with ``--get-server-output``, server with ``-J``. The sender counts what it
gave to the system, which is ahead of the link while buffers fill. Round trips are left out, because under full load
they hold the queue that the test itself makes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tidesplit.envs.traces.formats import MAX_DURATION_S, MAX_NUMBER, Samples, TraceError

ROUNDING_S = 1e-3  # by which an interval may begin before the end of the one before


def is_iperf3(text: str) -> bool:
    """True where a text looks like the JSON of iperf3, whole or as a stream of events."""
    head = text[:4096].lstrip()
    return head.startswith("{") and ('"intervals"' in text or '"event"' in head)


def parse_iperf3(text: str, source: str) -> Samples:
    """The bandwidth of each interval of a test that sent from the device. ``source`` names the file in messages.

    Raises:
        TraceError: no JSON of iperf3, a test that failed, or one that did not measure the uplink.
    """
    report = _report(text, source)
    start = report.get("start")
    test = start.get("test_start") if isinstance(start, Mapping) else None
    if report.get("error") and not report.get("intervals"):
        raise TraceError(f"{source}: the iperf3 test failed: {str(report['error'])[:200]}.")
    if isinstance(test, Mapping):
        if test.get("reverse") == 1:
            raise TraceError(f"{source}: iperf3 measured the downlink (-R), a test of the uplink expected.")
        if test.get("protocol") == "UDP" and not _received(report):
            raise TraceError(
                f"{source}: iperf3 sent UDP at a rate that it was given, which says nothing of the link; expected TCP, "
                f"or the server's figures (--get-server-output, and -J on the server)."
            )
    listed = _received(report) or report.get("intervals")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise TraceError(f"{source}: the iperf3 test holds no intervals, expected at least one.")
    rows = np.array([row for k, one in enumerate(listed) if (row := _interval(one, f"{source}, interval {k + 1}"))])
    if not rows.size:
        raise TraceError(f"{source}: every interval of the iperf3 test is omitted (-O), expected at least one other.")
    begin_s, end_s, bandwidth_bps = rows.T
    if (begin_s[1:] < end_s[:-1] - ROUNDING_S).any() or (np.diff(begin_s) <= 0).any():
        raise TraceError(f"{source}: intervals of the iperf3 test overlap, expected each to begin where one ends.")
    duration_s = float(end_s[-1] - begin_s[0])
    if duration_s > MAX_DURATION_S:
        raise TraceError(f"{source}: got {duration_s:g} s, expected at most {MAX_DURATION_S:.0f} s.")
    return Samples(begin_s - begin_s[0], bandwidth_bps, duration_s=duration_s)


def _report(text: str, source: str) -> Mapping[str, Any]:
    """The whole report. The events of a stream are put together."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        events = _events(text)
        if not events:
            raise TraceError(f"{source}: no JSON that can be read ({' '.join(str(error).split())}).") from error
        found = {name: data for name, data in events if name != "interval"}
        found["intervals"] = [data for name, data in events if name == "interval"]
        found["start"] = {"test_start": found.get("test_start"), **(found.get("start") or {})}
    if not isinstance(found, Mapping) or not {"intervals", "error"} & found.keys():
        raise TraceError(f"{source}: JSON without intervals received, expected the report of iperf3 -J.")
    return found


def _events(text: str) -> list[tuple[str, Any]]:
    """Events of ``--json-stream``: one JSON object a line. Empty where one is anything else; a cut end is dropped."""
    lines, events = [line for line in text.splitlines() if line.strip()], []
    for number, line in enumerate(lines):
        try:
            event = json.loads(line)
            events.append((str(event["event"]), event["data"]))
        except (ValueError, LookupError, TypeError, RecursionError):
            return events if number == len(lines) - 1 else []
    return events


def _received(report: Mapping[str, Any]) -> Any:
    """Intervals of the server, which received the data; None without them."""
    server = report.get("server_output_json")
    return server.get("intervals") if isinstance(server, Mapping) else None


def _interval(one: Any, where: str) -> tuple[float, float, float] | None:
    """Begin and end in seconds and bits per second of an interval; None for one that is omitted."""
    total = one.get("sum") if isinstance(one, Mapping) else None
    if not isinstance(total, Mapping):
        raise TraceError(f"{where}: it has no sum over the streams, expected one as iperf3 writes it.")
    values: list[Any] = [total.get(name) for name in ("start", "end", "bits_per_second")]
    sound = all(isinstance(v, int | float) and math.isfinite(v) and 0 <= v <= MAX_NUMBER * 1e6 for v in values)
    if not sound or values[1] <= values[0]:
        shown = ", ".join(f"{name} {str(v)[:20]}" for name, v in zip(("start", "end", "rate"), values, strict=True))
        raise TraceError(f"{where}: got {shown}, expected an end after the start and a rate of 0 or more.")
    begin_s, end_s, bandwidth_bps = map(float, values)
    return None if total.get("omitted") is True else (begin_s, end_s, bandwidth_bps)
