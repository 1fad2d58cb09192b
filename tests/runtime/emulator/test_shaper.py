"""Times at which packets leave and arrive: against tables made by hand, and against the simulator's arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidesplit.envs.traces.trace import Trace
from tidesplit.envs.traces.uplink import TraceUplink
from tidesplit.runtime.emulator.faults import Conditions
from tidesplit.runtime.emulator.shaper import LANE, Shaper, constant, round_trip, slices, uplink_of

RTT_S = 0.1
TOLERANCE_S = 1e-6


def shaper(
    trace: Trace, *, loss: float = 0.0, seed: int = 0, conditions: Conditions | None = None, rtt_s: float = RTT_S
) -> Shaper[str]:
    rng = np.random.default_rng(seed)
    return Shaper(uplink_of(trace), lambda _: rtt_s, loss=loss, rng=rng, conditions=conditions)


def steps(lengths_s: list[float], bytes_per_s: list[float]) -> Trace:
    ends = np.cumsum(lengths_s)
    return Trace("t", np.append(0.0, ends[:-1]), float(ends[-1]), 8.0 * np.array(bytes_per_s))


def arrivals(link: Shaper[str], until_s: float = math.inf) -> list[tuple[str, float]]:
    """All items with their times of arrival, each taken at its own time."""
    seen: list[tuple[str, float]] = []
    while (moment_s := link.next_s()) < until_s:
        seen += [(item, moment_s) for item in link.take(moment_s)]
    return seen


def expect(seen: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [item for item, _ in seen] == [item for item, _ in wanted]
    assert [moment for _, moment in seen] == pytest.approx([moment for _, moment in wanted], abs=TOLERANCE_S)


# Bins (s), bytes/s, packets put in (s, name, bytes), arrivals (name, s), each 0.05 s after the packet has left.
TABLE: dict[str, tuple[list[float], list[float], list[tuple[float, str, int]], list[tuple[str, float]]]] = {
    "one packet": ([1], [1000], [(0.0, "a", 100)], [("a", 0.15)]),
    "idle line": ([1], [1000], [(0.0, "a", 100), (0.5, "b", 100)], [("a", 0.15), ("b", 0.65)]),
    "queue": ([1], [1000], [(0.0, "a", 100), (0.02, "b", 50)], [("a", 0.15), ("b", 0.20)]),
    "over an edge": ([1, 1], [1000, 200], [(0.9, "a", 200)], [("a", 1.55)]),
    "through an outage": ([1, 2, 1], [1000, 0, 1000], [(0.9, "a", 150), (1.0, "b", 50)], [("a", 3.10), ("b", 3.15)]),
    "round the loop": ([1, 1], [1000, 0], [(0.9, "a", 200)], [("a", 2.15)]),
    "dead for ever": ([1], [0], [(0.0, "a", 1)], []),
}


@pytest.mark.parametrize("name", TABLE)
def test_known_arrivals(name: str) -> None:
    lengths_s, rates, entries, wanted = TABLE[name]
    link = shaper(steps(lengths_s, rates))
    for moment_s, item, size in entries:
        link.put(moment_s, [item], [size])
    expect(arrivals(link), wanted)


@settings(max_examples=60, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.0, 25e3, 2.5e5, 2.5e6]), min_size=1, max_size=6).filter(any),
    frames=st.lists(st.tuples(st.floats(0, 0.2), st.integers(200, 10_000)), min_size=1, max_size=20),
)
def test_frames_in_packets_take_as_long_as_in_the_simulator(
    rates: list[float], frames: list[tuple[float, int]]
) -> None:
    trace = steps([0.1] * len(rates), rates)
    world, link = TraceUplink.of([trace]), shaper(trace)
    now_s, free_s, wanted = 0.0, 0.0, []
    for number, (pause_s, size) in enumerate(frames):
        now_s += pause_s
        packets = slices(bytes(size), 1448)
        link.put(now_s, [""] * (len(packets) - 1) + [str(number)], [len(packet) for packet in packets])
        free_s = float(world.finish_s(LANE, np.array([max(now_s, free_s)]), np.array([float(size)]))[0])
        wanted.append((str(number), free_s + RTT_S / 2))
    expect([(item, moment) for item, moment in arrivals(link) if item], wanted)


# Changes (s, conditions) of a line of 1,000 bytes/s. At 0 a packet of 100 bytes entered, then one of 50.
CHANGES: dict[str, tuple[list[tuple[float, Conditions]], list[tuple[str, float]]]] = {
    "blackhole holds what has not left": (
        [(0.04, Conditions(dark=True)), (1.0, Conditions())],
        [("a", 1.11), ("b", 1.16)],
    ),
    "what has left arrives": (
        [(0.11, Conditions(dark=True)), (1.0, Conditions())],
        [("a", 0.15), ("b", 1.09)],
    ),
    "half the bandwidth from the middle on": ([(0.05, Conditions(bandwidth_factor=0.5))], [("a", 0.20), ("b", 0.30)]),
    "no bandwidth and back": (
        [(0.05, Conditions(bandwidth_factor=0.0)), (0.25, Conditions())],
        [("a", 0.35), ("b", 0.40)],
    ),
    "a longer way, half of it each way": ([(0.12, Conditions(extra_latency_s=0.2))], [("a", 0.15), ("b", 0.30)]),
    "a shorter way again does not overtake": (
        [(0.0, Conditions(extra_latency_s=0.4)), (0.12, Conditions())],
        [("a", 0.35), ("b", 0.35)],
    ),
    "nothing changes": ([(0.03, Conditions()), (0.06, Conditions()), (0.13, Conditions())], [("a", 0.15), ("b", 0.20)]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_conditions_change_on_the_way(name: str) -> None:
    changes, wanted = CHANGES[name]
    link = shaper(constant(8_000.0))
    link.put(0.0, ["a", "b"], [100, 50])
    seen: list[tuple[str, float]] = []
    for moment_s, conditions in changes:
        seen += arrivals(link, moment_s)
        link.change(moment_s, conditions)
    expect(seen + arrivals(link), wanted)


def test_dark_from_the_start_and_bytes_put_in_meanwhile() -> None:
    link = shaper(constant(8_000.0), conditions=Conditions(dark=True))
    link.put(0.1, ["a"], [100])
    link.put(0.2, ["b"], [100])
    assert link.next_s() == math.inf
    assert link.queued_s(0.3) == math.inf
    link.change(0.5, Conditions())
    expect(arrivals(link), [("a", 0.65), ("b", 0.75)])


def test_a_lost_packet_comes_a_round_trip_later_and_holds_those_after_it() -> None:
    link = shaper(constant(8e6), loss=0.5, seed=1)
    lost = np.random.default_rng(1)
    lost.standard_normal(4)
    gone = (lost.random(4) < 0.5).tolist()
    assert True in gone[:3]
    link.put(0.0, list("abcd"), [1000] * 4)
    ways = [0.001 * (n + 1) + RTT_S / 2 + (RTT_S if late else 0.0) for n, late in enumerate(gone)]
    expect(arrivals(link), list(zip("abcd", np.maximum.accumulate(ways).tolist(), strict=True)))


def test_jitter_spreads_arrivals_around_the_way_and_comes_from_the_generator() -> None:
    def late(seed: int) -> list[float]:
        link = shaper(constant(8e6), seed=seed, conditions=Conditions(jitter_s=0.01))
        for number in range(500):
            link.put(float(number), ["x"], [1000])
        return [moment - number - 0.001 for number, (_, moment) in enumerate(arrivals(link))]

    assert np.mean(late(3)) == pytest.approx(RTT_S / 2, abs=0.002)
    assert np.std(late(3)) == pytest.approx(0.01, rel=0.15)
    assert late(3) == late(3)
    assert late(3) != late(4)


def test_held_bytes_and_queue_age() -> None:
    link = shaper(constant(8_000.0))
    link.put(0.0, ["a", "b"], [100, 50])
    assert (link.held_bytes, link.queued_s(0.0)) == (150, pytest.approx(0.15, abs=TOLERANCE_S))
    assert link.take(0.16) == ["a"]
    assert (link.held_bytes, link.queued_s(0.16)) == (50, 0.0)


def test_round_trip_is_the_traces_where_it_has_one() -> None:
    bare = constant(1e6)
    measured = Trace("m", np.array([0.0, 1.0]), 2.0, np.full(2, 1e6), np.array([0.05, 0.2]))
    assert round_trip(bare, 0.06)(7.0) == 0.06
    assert [round_trip(measured, 0.06)(time_s) for time_s in (0.0, 0.99, 1.0, 2.5, 3.0)] == [0.05, 0.05, 0.2, 0.05, 0.2]


def test_slices_are_the_data_in_order() -> None:
    data = bytes(range(256)) * 20
    assert [len(part) for part in slices(data, 1448)] == [1448, 1448, 1448, 776]
    assert b"".join(slices(data, 1448)) == data
