"""Figures of streams and of breaks, from logs that are written down here."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.runtime.deployed import CUT_STREAM, VIDEO_STREAM, points_of_streams
from tidesplit.benchmarks.run_figures import Break, Failures, answered_once, break_row, grouped, keys_a_break, sent_row

PERIOD_S = 0.1


def line(frame: int, stream: str | None = "p1", key: bool | None = False, by: str = "server") -> dict[str, Any]:
    return {
        "frame": frame, "arrival_s": PERIOD_S * frame, "decision": CUT_STREAM, "answered_by": by, "bytes": 120,
        "stream": stream, "key": key, "reference_age": None if key or stream is None else 1.0,
        "demand": {"deadline_ms": 200.0},
    }  # fmt: skip


def placed_s(lines: list[dict[str, Any]]) -> dict[int, float]:
    return {one["frame"]: one["arrival_s"] + 0.001 for one in lines}


def test_failures_shortly_after_each_other_are_one_break() -> None:
    assert grouped([]) == []
    assert grouped([1.0, 1.1, 2.5, 6.0]) == [Break(1.0, 2.5), Break(6.0, 6.0)]


def test_each_frame_has_one_end() -> None:
    assert answered_once([line(1), line(0)], 2)
    assert not answered_once([line(0), line(0)], 2)
    assert not answered_once([line(0)], 2)


@pytest.mark.parametrize(
    ("keys", "most"),
    [({0}, 1), ({0, 20}, 1), ({0, 1}, 2), ({0, 20, 21, 22}, 3), (set(), 0)],
    ids=["begin", "one a break", "two at the beginning", "three after the break", "none"],
)
def test_keys_between_breaks(keys: set[int], most: int) -> None:
    """The break at 1.95 s comes before frame 20. A key of another stream counts apart."""
    lines = [line(i, key=i in keys) for i in range(40)] + [line(40, VIDEO_STREAM, key=True)]
    assert keys_a_break(lines, [Break(1.95, 1.99)], placed_s(lines)) == max(most, 1)


def test_a_forgotten_stream_needs_a_key() -> None:
    lines = [line(0, key=True), line(299, key=False), line(620, key=True)]
    assert keys_a_break(lines, [], placed_s(lines)) == 1


def test_cost_of_breaks() -> None:
    """Frame 20 was a key that failed with the others of the break, so the next key is that of frame 25."""
    lines = [line(i, key=i in (0, 20, 25), by="miss" if i in (19, 35) else "server") for i in range(40)]
    assert break_row(lines, Failures([1.95, 1.99], {19, 20}, {19}), placed_s(lines)) == {
        "breaks": 1, "keys_a_break": 1, "lost_keys": 1, "near": len(range(18, 30)), "near_misses": 1, "unknown": 1,
        "unknown_misses": 1,
    }  # fmt: skip


def test_bytes_sent_and_listed() -> None:
    """Bytes by age are those of the table, also of a key. What is complete by itself has its mean."""
    table = points_of_streams(9)[1]
    lines = [
        line(0, key=True), line(1), {**line(2), "reference_age": 32.0},
        {**line(3, None, None), "decision": "p0-jpeg-q50"}, {**line(4, None, None), "bytes": 0},
    ]  # fmt: skip
    found = sent_row(lines, table)
    assert found == {
        "sent": 4, "sent_bytes": 120.0, "listed_bytes": pytest.approx((300 + 100 + 200 + 900) / 4), "in_streams": 3,
        "keys": 1, "motion": pytest.approx((120 + 120) / (100 + 200)),
    }  # fmt: skip
    nothing = sent_row(lines[4:], table)
    assert nothing.pop("motion") == 1.0
    assert set(nothing.values()) == {0}
    assert all(a <= b for a, b in pairwise(table.streams.factors[table.row(CUT_STREAM), 1:]))
