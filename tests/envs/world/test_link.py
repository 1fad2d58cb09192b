"""Link arithmetic: tables with known answers, and any trace against integration by small steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.envs.world.link import NEVER_S, ConstantUplink


def trace(steps_s: list[float], rates: list[float], name: str = "t") -> Trace:
    """Bins of these lengths in seconds, carrying these bytes a second."""
    ends = np.cumsum(steps_s)
    return Trace(name, np.append(0.0, ends[:-1]), float(ends[-1]), 8.0 * np.array(rates))


def of_one(steps_s: list[float], rates: list[float]) -> TraceUplink:
    return TraceUplink.of([trace(steps_s, rates)])


def finish_s(link: TraceUplink, start_s: float, payload: float) -> float:
    return float(link.finish_s(np.zeros(1, int), np.array([start_s]), np.array([payload]))[0])


# bins (s), bytes/s, start s, bytes, last byte out at s
ARRIVES: dict[str, tuple[list[float], list[float], float, float, float]] = {
    "within one bin": ([1, 1], [1000, 2000], 0.25, 500, 0.75),
    "ends at a border": ([1, 1], [1000, 2000], 0.25, 750, 1.0),
    "over a border": ([1, 1], [1000, 2000], 0.5, 1500, 1.5),
    "over the loop": ([1, 1], [1000, 2000], 1.5, 1500, 2.5),
    "three loops on": ([1, 1], [1000, 2000], 0.0, 9500, 6.5),
    "a whole loop ends at its end": ([1, 1], [1000, 2000], 0.0, 3000, 2.0),
    "begins in a later loop": ([1, 1], [1000, 2000], 20.5, 1000, 21.25),
    "waits through an outage": ([1, 1, 1], [1000, 0, 1000], 0.5, 1000, 2.5),
    "begins in an outage": ([1, 1, 1], [1000, 0, 1000], 1.25, 500, 2.5),
    "ends where an outage begins": ([1, 1, 1], [1000, 0, 1000], 0.5, 500, 1.0),
    "outage at the loop's border": ([1, 1], [1000, 0], 0.5, 1000, 2.5),
    "outage on both sides of the border": ([1, 1, 1], [0, 1000, 0], 1.5, 1000, 4.5),
    "begins at the outage that ends the loop": ([1, 1], [1000, 0], 1.0, 1000, 3.0),
    "a loop of bytes over an outage": ([1, 1], [1000, 0], 0.0, 2000, 3.0),
    "begins at the border": ([1, 1], [0, 1000], 2.0, 500, 3.5),
    "nothing to send": ([1, 1], [0, 1000], 0.25, 0, 0.25),
    "one bin": ([1], [1000], 0.0, 2500, 2.5),
    "dead": ([1, 1], [0, 0], 0.5, 1, NEVER_S),
    "nothing over a dead link": ([1, 1], [0, 0], 0.5, 0, 0.5),
    "behind what never leaves": ([1, 1], [0, 0], NEVER_S + 1.0, 1, NEVER_S + 1.0),
}


@pytest.mark.parametrize("case", ARRIVES.values(), ids=ARRIVES)
def test_moment_of_the_last_byte(case: tuple[list[float], list[float], float, float, float]) -> None:
    steps, rates, start, payload, expected = case
    assert finish_s(of_one(steps, rates), start, payload) == pytest.approx(expected, abs=1e-6)


# from s, to s -> bytes over the bins 1 s at 1000, 1 s at 0, 2 s at 500 (2000 a loop of 4 s)
CARRIED = [(0, 1, 1000), (0.5, 1.5, 500), (1, 2, 0), (1.5, 3, 500), (0, 4, 2000), (3.5, 5, 1250), (2, 42, 20000)]


@pytest.mark.parametrize(("start", "end", "expected"), CARRIED)
def test_bytes_between_two_moments(start: float, end: float, expected: float) -> None:
    link = of_one([1, 1, 2], [1000, 0, 500])
    carried = link.bytes_between(np.zeros(1, int), np.array([start]), np.array([end]))
    assert carried == pytest.approx([expected])


@pytest.mark.parametrize(("moment", "expected"), [(0.0, 1000), (0.99, 1000), (1.0, 0), (2.0, 500), (4.0, 1000)])
def test_rate_at_a_moment(moment: float, expected: float) -> None:
    assert of_one([1, 1, 2], [1000, 0, 500]).rate_at(np.zeros(1, int), np.array([moment])) == expected


def test_lanes_play_their_own_trace_from_their_own_offset() -> None:
    traces = [trace([1, 1], [1000, 0]), trace([1], [100]), trace([2], [0])]
    link = TraceUplink.of(traces).starting(np.array([0, 0, 1, 2]), np.array([0.0, 1.5, 0.75, 0.0]))
    lane = np.array([0, 1, 2, 3, 1])
    at_s = link.finish_s(lane, np.zeros(5), np.full(5, 100.0))
    assert at_s == pytest.approx([0.1, 0.6, 1.0, NEVER_S, 0.6], abs=1e-6)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_a_link_at_a_scale_is_the_link_of_the_scaled_trace(factor: float) -> None:
    lane, start, payload = (
        np.zeros(5, int),
        np.array([0.0, 0.3, 1.1, 2.9, 17.0]),
        np.array([0.0, 10.0, 400.0, 3e3, 5e4]),
    )
    link = of_one([1, 1, 2], [1000, 0, 500])
    ours = link.starting(link.trace_of, link.offset_s, np.array([factor]))
    theirs = of_one([1, 1, 2], [1000 * factor, 0, 500 * factor])
    np.testing.assert_allclose(ours.finish_s(lane, start, payload), theirs.finish_s(lane, start, payload), atol=1e-6)
    np.testing.assert_allclose(ours.bytes_until(lane, start), theirs.bytes_until(lane, start))
    np.testing.assert_allclose(ours.rate_at(lane, start), theirs.rate_at(lane, start))


@pytest.mark.parametrize(
    ("rate", "payload", "expected"), [(1000, 500, 2.5), (1000, 0, 2.0), (0, 0, 2.0), (0, 1, NEVER_S)]
)
def test_constant_uplink(rate: float, payload: float, expected: float) -> None:
    link = ConstantUplink(np.array([9.0, rate]))
    assert link.finish_s(np.array([1]), np.array([2.0]), np.array([payload])) == pytest.approx([expected])


bins = st.lists(
    st.tuples(st.sampled_from([0.01, 0.1, 0.25, 1.0, 3.0]), st.sampled_from([0.0, 0.0, 10.0, 4e3, 37.5e3, 2.5e6])),
    min_size=1,
    max_size=8,
)


def by_walking(bins: list[tuple[float, float]], start_s: float, payload: float) -> float:
    """The same by going through the bins one after the other."""
    clock, k = 0.0, 0
    while True:
        step, rate = bins[k % len(bins)]
        begins, ends = max(clock, start_s), clock + step
        room = max(ends - begins, 0.0) * rate
        if room >= payload - 1e-4 and room > 0.0:
            return begins + payload / rate
        payload -= room
        clock, k = ends, k + 1


@settings(max_examples=300, deadline=None)
@given(bins, st.floats(0.0, 12.0), st.floats(1.0, 1e5))
def test_equals_walking_through_the_bins(bins: list[tuple[float, float]], start_s: float, payload: float) -> None:
    link = of_one([b[0] for b in bins], [b[1] for b in bins])
    per_loop = sum(step * rate for step, rate in bins)
    if per_loop == 0.0:
        assert finish_s(link, start_s, payload) == NEVER_S
    elif payload / per_loop < 1e4:
        slowest = min(rate for _, rate in bins if rate > 0.0)
        expected = by_walking(bins, start_s, payload)
        assert finish_s(link, start_s, payload) == pytest.approx(expected, rel=1e-9, abs=2e-4 / slowest)


@settings(max_examples=300, deadline=None)
@given(bins, st.floats(0.0, 12.0), st.floats(1e-3, 30.0))
def test_both_directions_undo_each_other(bins: list[tuple[float, float]], start_s: float, for_s: float) -> None:
    """Earliest moment by which the bytes of an interval are over: never after its end, and nothing flows between."""
    link = of_one([b[0] for b in bins], [b[1] for b in bins])
    lane, start, end = np.zeros(1, int), np.array([start_s]), np.array([start_s + for_s])
    carried = link.bytes_between(lane, start, end)
    finish = link.finish_s(lane, start, carried)
    if carried[0] > 1.0:
        assert finish[0] <= end[0] + 1e-9
        assert link.bytes_between(lane, start, finish) == pytest.approx(carried, rel=1e-9, abs=1e-3)
