"""The pipeline as tables worked out by hand. Points, link and times: see `tests.envs.small`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs.small import (
    BYTES_PER_S,
    CUT,
    IMAGE,
    LOCAL,
    TABLE,
    WORLD,
    idle,
    play,
    queued,
    stacked,
    values,
    with_uplink,
)
from tidesplit.envs.world.hop import RoundTrip
from tidesplit.envs.world.link import NEVER_S, ConstantUplink
from tidesplit.envs.world.pipeline import Frame, advance
from tidesplit.envs.world.queues import turn_s
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Demand, DemandError, Demands, each

# Deadline 100 ms, guard 5 ms, finish 30 ms: the device begins to finish a cut frame 65 ms after it arrived.
# A whole CNN runs in the worker, so the foreground is free at once.
# what happens: (point, settings, outcome, queues afterwards)
FRAMES: dict[str, tuple[int, dict[str, Any], dict[str, float], dict[str, float]]] = {
    "on the device": (
        LOCAL,
        {},
        {"answered_by": DEVICE, "latency_s": 0.050, "accuracy": 0.6, "utility": 0.6, "sent_bytes": 0, "head_s": 0.050},
        {"device_free_s": 0.0, "worker_until_s": 0.050, "link_free_s": 0.0, "last_sent_s": 0.0},
    ),
    "device throttled": (
        LOCAL,
        {"slow": 1.5},
        {"answered_by": DEVICE, "latency_s": 0.075, "head_s": 0.075},
        {"device_free_s": 0.0, "worker_until_s": 0.075},
    ),
    "device throttled too far": (
        LOCAL,
        {"slow": 2.1, "slow_belief": 1.0},
        {"answered_by": MISS, "latency_s": 0.100, "accuracy": 0.0, "utility": 0.0, "head_s": 0.105},
        {"device_free_s": 0.0, "worker_until_s": 0.105},
    ),
    "waits for the device": (
        LOCAL,
        {"queues": queued(device_free_s=0.030)},
        {"answered_by": DEVICE, "latency_s": 0.080, "waited_s": 0.030, "head_s": 0.050},
        {"device_free_s": 0.030, "worker_until_s": 0.080},
    ),
    # head 10, link 40, round trip 40, tail 20: too late by 10 ms
    "image too late": (
        IMAGE,
        {},
        {"answered_by": MISS, "latency_s": 0.100, "utility": 0.0, "sent_bytes": 4000, "uplink_s": 0.040},
        {"device_free_s": 0.010, "link_free_s": 0.050, "last_sent_s": 0.010},
    ),
    "image in time over twice the link": (
        IMAGE,
        {"rate": 200_000.0},
        {"answered_by": SERVER, "latency_s": 0.090, "accuracy": 0.9, "utility": 0.9, "server_s": 0.020},
        {"device_free_s": 0.010, "link_free_s": 0.030},
    ),
    # 20 + 10 + 40 + 10 = 80 ms: due after the fallback's moment of 65 ms, yet foreseen in time, so it is waited for
    "cut, the answer imminent": (
        CUT,
        {"expected_s": 0.080},
        {"answered_by": SERVER, "latency_s": 0.080, "accuracy": 0.8, "fell_back": False, "sent_bytes": 1000},
        {"device_free_s": 0.020, "finish_until_s": 0.0, "link_free_s": 0.030, "last_sent_s": 0.020},
    ),
    "cut, the truth known": (CUT, {}, {"answered_by": SERVER, "latency_s": 0.080, "fell_back": False}, {}),
    # The answer was foreseen at 60 ms and is not there at 65: the device begins, the server is faster after all.
    "cut, finished for nothing": (
        CUT,
        {"expected_s": 0.060},
        {"answered_by": SERVER, "latency_s": 0.080, "accuracy": 0.8, "fell_back": True},
        {"finish_from_s": 0.065, "finish_until_s": 0.095},
    ),
    "cut, the answer foreseen too late": (
        CUT,
        {"expected_s": 0.101},
        {"answered_by": SERVER, "latency_s": 0.080, "fell_back": True},
        {"finish_from_s": 0.065, "finish_until_s": 0.095},
    ),
    "cut, before the fallback": (
        CUT,
        {"rtt_s": 0.020, "expected_s": 0.060},
        {"answered_by": SERVER, "latency_s": 0.060, "fell_back": False},
        {"finish_until_s": 0.0},
    ),
    "cut, fallback in time": (
        CUT,
        {"rate": 10_000.0},
        {
            "answered_by": DEVICE,
            "latency_s": 0.095,
            "accuracy": 0.7,
            "utility": 0.7,
            "fell_back": True,
            "uplink_s": 0.1,
        },
        {"device_free_s": 0.020, "finish_from_s": 0.065, "finish_until_s": 0.095, "link_free_s": 0.120},
    ),
    "cut over a dead link": (
        CUT,
        {"rate": 0.0},
        {"answered_by": DEVICE, "latency_s": 0.095, "accuracy": 0.7, "fell_back": True},
        {"finish_until_s": 0.095, "link_free_s": NEVER_S},
    ),
    # Begun at 65 ms, as the slow-down of the frame before would allow; by the true one it takes 42 ms.
    "cut, fallback by a wrong belief of the clock": (
        CUT,
        {"rate": 10_000.0, "slow": 1.4, "slow_belief": 1.0},
        {"answered_by": MISS, "latency_s": 0.100, "fell_back": True, "head_s": 0.028},
        {"finish_from_s": 0.065, "finish_until_s": 0.107},
    ),
    "cut, throttled and known": (
        CUT,
        {"rate": 10_000.0, "slow": 1.4},
        {"answered_by": DEVICE, "latency_s": 0.095, "fell_back": True},
        {"finish_from_s": 0.053, "finish_until_s": 0.095},
    ),
    # The frame waited 50 ms: its head ends after 70, when it is too late to finish it.
    "cut, fallback too late": (
        CUT,
        {"rate": 10_000.0, "queues": queued(device_free_s=0.050)},
        {"answered_by": MISS, "latency_s": 0.100, "fell_back": False, "waited_s": 0.050, "sent_bytes": 1000},
        {"device_free_s": 0.070, "finish_until_s": 0.0, "link_free_s": 0.170},
    ),
    "cut, fallback below the floor": (
        CUT,
        {"rate": 10_000.0, "demand": Demand(min_accuracy=0.75)},
        {"answered_by": MISS, "fell_back": False, "utility": 0.0},
        {"finish_until_s": 0.0},
    ),
    # A finish already waits from 60 to 90 ms: the second comes after it, too late for its own frame.
    "cut, fallback behind another": (
        CUT,
        {"rate": 10_000.0, "queues": queued(finish_from_s=0.060, finish_until_s=0.090)},
        {"answered_by": MISS, "fell_back": True},
        {"finish_from_s": 0.060, "finish_until_s": 0.120},
    ),
    "behind the link's queue": (
        CUT,
        {"queues": queued(link_free_s=0.035), "expected_s": 0.095},
        {"answered_by": SERVER, "latency_s": 0.095, "uplink_s": 0.025, "fell_back": False},
        {"link_free_s": 0.045},
    ),
    "the server is busy": (
        CUT,
        {"wait_s": 0.015, "expected_s": 0.080},
        {"answered_by": SERVER, "latency_s": 0.095, "server_s": 0.025, "fell_back": False},
        {},
    ),
    # Waited 60 of 100 ms, and 50 more are needed: not begun, the device stays free.
    "dropped": (
        LOCAL,
        {"queues": queued(device_free_s=0.060)},
        {"answered_by": MISS, "latency_s": 0.100, "waited_s": 0.060, "head_s": 0.0, "sent_bytes": 0, "utility": 0.0},
        {"device_free_s": 0.060, "link_free_s": 0.0},
    ),
    "a cut dropped is not sent": (
        CUT,
        {"queues": queued(device_free_s=0.081)},
        {"answered_by": MISS, "sent_bytes": 0, "uplink_s": 0.0, "server_s": 0.0, "fell_back": False},
        {"device_free_s": 0.081, "link_free_s": 0.0, "last_sent_s": 0.0},
    ),
    "just not dropped": (
        LOCAL,
        {"queues": queued(device_free_s=0.0499)},
        {"answered_by": DEVICE, "latency_s": 0.0999},
        {},
    ),
    # A finish falls due at 20 ms and takes 15: it goes first, the CNN ends 15 ms later.
    "interrupted by a finish": (
        LOCAL,
        {"queues": queued(finish_from_s=0.020, finish_until_s=0.035)},
        {"answered_by": DEVICE, "latency_s": 0.065, "head_s": 0.065, "waited_s": 0.0},
        {"device_free_s": 0.0, "worker_until_s": 0.065, "finish_until_s": 0.035},
    ),
    # A finish planned for 60 ms does not keep the worker idle until then.
    "before a finish": (
        LOCAL,
        {"queues": queued(finish_from_s=0.060, finish_until_s=0.090)},
        {"answered_by": DEVICE, "latency_s": 0.050, "waited_s": 0.0},
        {"device_free_s": 0.0, "worker_until_s": 0.050, "finish_from_s": 0.060, "finish_until_s": 0.090},
    ),
    "a cut interrupted by a finish": (
        CUT,
        {"queues": queued(finish_from_s=0.010, finish_until_s=0.025), "expected_s": 0.095},
        {"answered_by": SERVER, "latency_s": 0.095, "head_s": 0.035, "waited_s": 0.0},
        {"device_free_s": 0.035, "finish_until_s": 0.025},
    ),
    "a cut waits for the worker": (
        CUT,
        {"queues": queued(worker_until_s=0.015), "expected_s": 0.095},
        {"answered_by": SERVER, "latency_s": 0.095, "head_s": 0.020, "waited_s": 0.015},
        {"device_free_s": 0.035, "worker_until_s": 0.015},
    ),
    "a picture does not": (
        IMAGE,
        {"queues": queued(worker_until_s=0.055), "rate": 200_000.0},
        {"answered_by": SERVER, "latency_s": 0.090, "head_s": 0.010, "waited_s": 0.0},
        {"device_free_s": 0.010, "worker_until_s": 0.055},
    ),
    "a whole CNN waits for another": (
        LOCAL,
        {"queues": queued(worker_until_s=0.045)},
        {"answered_by": DEVICE, "latency_s": 0.095, "waited_s": 0.045, "dropped": False},
        {"device_free_s": 0.0, "worker_until_s": 0.095},
    ),
    "a whole CNN that would wait too long": (
        LOCAL,
        {"queues": queued(worker_until_s=0.055)},
        {"answered_by": MISS, "waited_s": 0.055, "dropped": True, "head_s": 0.0, "slow_down": 0.0},
        {"device_free_s": 0.0, "worker_until_s": 0.055},
    ),
    # The worker is free after 45 ms. The device believes 55 and drops the frame.
    "the device believes that it would wait too long": (
        LOCAL,
        {"queues": queued(worker_until_s=0.045), "worker_s": 0.055},
        {"answered_by": MISS, "dropped": True},
        {"worker_until_s": 0.045},
    ),
    "waits for a finish under way": (
        LOCAL,
        {"queues": queued(finish_from_s=-0.010, finish_until_s=0.020)},
        {"answered_by": DEVICE, "latency_s": 0.070, "waited_s": 0.020, "head_s": 0.050},
        {},
    ),
    "for latency: what is left of the deadline": (
        LOCAL,
        {"demand": Demand(objective="latency")},
        {"answered_by": DEVICE, "latency_s": 0.050, "utility": 0.5, "accuracy": 0.6},
        {},
    ),
    # The head ends at 20, the finish takes 30: after waiting 30 ms the device finishes, whatever is foreseen.
    "for latency: never twice too slow": (
        CUT,
        {"demand": Demand(objective="latency", deadline_s=0.2), "rate": 10_000.0, "expected_s": 0.170},
        {"answered_by": DEVICE, "latency_s": 0.080, "utility": 0.6, "accuracy": 0.7, "fell_back": True},
        {"finish_from_s": 0.050, "finish_until_s": 0.080},
    ),
    "for latency: an answer below the floor is worth nothing": (
        LOCAL,
        {"demand": Demand(objective="latency", min_accuracy=0.7)},
        {"answered_by": DEVICE, "latency_s": 0.050, "accuracy": 0.6, "utility": 0.0},
        {},
    ),
    "payloads spread": (
        CUT,
        {"table": with_uplink(TABLE, bytes_sigma=np.array([0.0, np.log(2.0), 0.0])), "noise": 1.0, "expected_s": 0.080},
        {"sent_bytes": 1850.0, "uplink_s": 0.0185},
        {},
    ),
}


@pytest.mark.parametrize("case", FRAMES.values(), ids=FRAMES)
def test_one_frame(case: tuple[int, dict[str, Any], dict[str, float], dict[str, float]]) -> None:
    point, settings, outcome, later = case
    queues, happened, _ = play(point, **settings)
    assert {name: values(happened)[name] for name in outcome} == pytest.approx(outcome)
    assert {name: values(queues)[name] for name in later} == pytest.approx(later)


# a frame that has waited so long (ms), its point, the link's rate -> who answers, dropped, bytes sent
MISSES: dict[str, tuple[float, int, float, int, bool, float]] = {
    "in time": (0, CUT, BYTES_PER_S, SERVER, False, 1000),
    "the answer is late": (0, IMAGE, BYTES_PER_S, MISS, False, 4000),
    "nothing comes back": (0, IMAGE, 0.0, MISS, False, 4000),
    "the head would just end in time": (50, LOCAL, BYTES_PER_S, DEVICE, False, 0),
    "the head would end too late": (50.1, LOCAL, BYTES_PER_S, MISS, True, 0),
    "nor is such a frame sent": (80.1, CUT, BYTES_PER_S, MISS, True, 0),
    "sent just before, and late": (79.9, CUT, BYTES_PER_S, MISS, False, 1000),
}


@pytest.mark.parametrize("case", MISSES.values(), ids=MISSES)
def test_a_drop_is_told_from_a_late_answer(case: tuple[float, int, float, int, bool, float]) -> None:
    waited_ms, point, rate, answered_by, dropped, sent_bytes = case
    _, outcome, _ = play(point, queues=queued(device_free_s=waited_ms / 1e3), rate=rate)
    assert (outcome.answered_by, outcome.dropped, outcome.hops[0].sent_bytes) == (answered_by, dropped, sent_bytes)


# device free, finish from, until; arrival -> turn
TURNS = [
    ((0.0, 0.0, 0.0), 0.1, 0.1),
    ((0.2, 0.0, 0.0), 0.1, 0.2),
    ((0.0, 0.05, 0.15), 0.1, 0.15),
    ((0.0, 0.05, 0.10), 0.1, 0.1),
    ((0.0, 0.11, 0.15), 0.1, 0.1),
    ((0.12, 0.11, 0.15), 0.1, 0.15),
]


@pytest.mark.parametrize(("taken", "arrival", "expected"), TURNS)
def test_turn(taken: tuple[float, float, float], arrival: float, expected: float) -> None:
    queues = queued(device_free_s=taken[0], finish_from_s=taken[1], finish_until_s=taken[2])
    assert turn_s(queues, np.array([arrival])) == pytest.approx([expected])


WAITING = replace(WORLD, probe_after_s=1.0)
# arrival, last sent, link free, point -> bytes sent at which moment
PROBES: dict[str, tuple[float, float, float, int, float, float]] = {
    "after a silence": (2.0, 1.0, 0.0, LOCAL, 1350.0, 2.0),
    "before anything was sent": (0.0, -np.inf, 0.0, LOCAL, 1350.0, 0.0),
    "not before": (2.0, 1.01, 0.0, LOCAL, 0.0, 1.01),
    "not behind other bytes": (2.0, 1.0, 2.1, LOCAL, 0.0, 1.0),
    "not beside a frame": (2.0, 1.0, 0.0, CUT, 1000.0, 2.02),
}


@pytest.mark.parametrize("case", PROBES.values(), ids=PROBES)
def test_probe(case: tuple[float, float, float, int, float, float]) -> None:
    arrival, last, free, point, sent_bytes, sent_s = case
    before = queued(last_sent_s=last, link_free_s=free)
    queues, outcome, (crossing,) = play(point, arrival_s=arrival, queues=before, world=WAITING)
    assert outcome.hops[0].sent_bytes == pytest.approx([sent_bytes])
    assert queues.hops[0].last_sent_s == pytest.approx([sent_s])
    assert crossing.sent == (sent_bytes > 0.0)


def test_probe_takes_time_on_the_link_and_is_answered_without_a_tail() -> None:
    queues, outcome, (crossing,) = play(LOCAL, arrival_s=5.0, world=WAITING)
    assert queues.hops[0].free_s == pytest.approx([5.0135])
    assert crossing.answered_s == pytest.approx([5.0535])
    assert (outcome.answered_by, outcome.hops[0].uplink_s, outcome.server_s) == (DEVICE, 0.0, 0.0)


def test_dropped_frame_may_be_followed_by_a_probe() -> None:
    _, outcome, (crossing,) = play(CUT, queues=queued(device_free_s=0.090, last_sent_s=-5.0), world=WAITING)
    assert (outcome.answered_by, outcome.hops[0].sent_bytes, crossing.sent) == (MISS, 1350.0, True)
    assert crossing.due_s == np.inf


# payload with overhead, idle before it (s) -> round trips that the ramp costs (ten segments: 14,600 bytes)
RAMP = [
    (14_600, 2, 0),
    (14_601, 2, 1),
    (43_800, 2, 1),
    (43_801, 2, 2),
    (102_200, 2, 2),
    (102_201, 2, 3),
    (102_201, 1, 0),
]


@pytest.mark.parametrize(("payload", "idle_s", "rounds"), RAMP)
def test_ramp_of_an_idle_connection(payload: float, idle_s: float, rounds: int) -> None:
    table = with_uplink(replace(TABLE, head_s=np.zeros(3)), bytes_mean=np.array([payload - 150.0, 850.0, 0.0]))
    _, _, (crossing,) = play(IMAGE, arrival_s=5.0 + idle_s, queues=queued(link_free_s=5.0), table=table, rate=1e6)
    assert crossing.uplink_s == pytest.approx([rounds * 0.040 + payload / 1e6])


def test_frames_in_a_row_share_device_and_link() -> None:
    """Every 40 ms one of 50 ms: each waits 10 ms longer, until one cannot be ready in 105 ms; a drop saves 50 ms."""
    queues, by = idle(), []
    for k in range(12):
        queues, outcome, _ = play(LOCAL, arrival_s=k * 0.040, queues=queues, demand=Demand(deadline_s=0.105))
        by.append((int(outcome.answered_by[0]), round(float(outcome.waited_s[0]) * 1e3)))
    answered = [(DEVICE, waited) for waited in (0, 10, 20, 30, 40, 50)]
    assert by == [*answered, (MISS, 60), *answered[2:], (MISS, 60)]


def test_lanes_do_not_mix() -> None:
    """A batch of different cases gives what each gives alone."""
    points, rates = np.array([IMAGE, CUT, LOCAL, CUT]), np.array([2e5, 1e4, 1e5, 0.0])
    free = np.array([0.0, 0.05, 0.03, 0.01])
    batch = each(lambda column: np.repeat(column, 4, axis=0), idle())._replace(device_free_s=free)
    ones = np.ones(4)
    frame = Frame(0 * ones, ones, 0 * ones, 0 * ones, 0 * ones, 20 * ones, ones, (RoundTrip(0.04 * ones, 0.04 * ones),))
    together = advance(
        batch,
        points,
        frame,
        table=TABLE,
        demands=Demands.of(*[Demand()] * 4),
        world=WORLD,
        uplinks=(ConstantUplink(rates),),
        lane=np.arange(4),
    )
    for lane in range(4):
        alone = play(int(points[lane]), rate=rates[lane], queues=queued(device_free_s=free[lane]))
        for ours, theirs in zip(together, alone, strict=True):
            for one, other in zip(stacked(ours), stacked(theirs), strict=True):
                assert one[lane] == other[0]


# (arguments, sentence)
NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"objective": "speed"}, "objective 'speed' received, 'accuracy' or 'latency' expected"),
    ({"fps": 0.0}, "0 frames a second received, 0.1 to 1000 expected"),
    ({"fps": float("nan")}, "nan frames a second received"),
    ({"deadline_s": 0.0}, "a deadline of 0 ms received, 1 to 60000 ms expected"),
    ({"min_accuracy": 80.0}, "an accuracy of at least 80 received, 0 to 1 expected"),
]


@pytest.mark.parametrize(("arguments", "sentence"), NONSENSE)
def test_demands_that_make_no_sense(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DemandError, match=sentence):
        Demand(**arguments)
