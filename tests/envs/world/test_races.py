"""Races and the worker as tables worked out by hand. Points, link and times: see `tests.envs.small`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.envs.small import CUT, IMAGE, LOCAL, TABLE, WORLD, play, queued, values
from tidesplit.envs.world.heat import Cooling
from tidesplit.envs.world.vocabulary import DEVICE, MISS, SERVER, Demand
from tidesplit.profiling.points.table import Machine, PointTable

# The image's race runs a CNN of 25 ms and accuracy 0.6. The cut's race finishes its own frame in 30 ms (0.7).
RACING = replace(
    TABLE,
    races=np.array([True, True, False]),
    finish_s=np.array([0.025, 0.030, np.inf]),
    finish_accuracy=np.array([0.6, 0.7, 0.0]),
)
FAST = {"rate": 200_000.0}  # the image's answer comes after 10 + 20 + 40 + 20 = 90 ms
QUICKEST = Demand(objective="latency")


def with_accuracy(device: float) -> PointTable:
    return replace(RACING, finish_accuracy=np.array([device, device, 0.0]))


# what happens: (point, settings, outcome, queues afterwards)
RACES: dict[str, tuple[int, dict[str, Any], dict[str, float], dict[str, float]]] = {
    "the server is in time": (
        IMAGE,
        FAST,
        {"answered_by": SERVER, "latency_s": 0.090, "accuracy": 0.9, "utility": 0.9, "fell_back": True},
        {"device_free_s": 0.010, "worker_until_s": 0.035, "finish_until_s": 0.0},
    ),
    "the server is late, and the device's answer is held until the deadline": (
        IMAGE,
        {},
        {"answered_by": DEVICE, "latency_s": 0.100, "accuracy": 0.6, "utility": 0.6, "fell_back": True},
        {"worker_until_s": 0.035},
    ),
    "a dead link": (
        IMAGE,
        {"rate": 0.0},
        {"answered_by": DEVICE, "latency_s": 0.100, "accuracy": 0.6},
        {"worker_until_s": 0.035},
    ),
    # 10 + 25 * 4 = 110 ms in truth, which the device does not believe
    "neither is in time": (
        IMAGE,
        {"table": replace(RACING, head_s=np.array([0.0025, 0.02, 0.05])), "slow": 4.0, "slow_belief": 1.0},
        {"answered_by": MISS, "latency_s": 0.100, "accuracy": 0.0, "utility": 0.0, "fell_back": True},
        {"device_free_s": 0.010, "worker_until_s": 0.110},
    ),
    "the device is the more accurate one": (
        IMAGE,
        {**FAST, "table": with_accuracy(0.95)},
        {"answered_by": DEVICE, "latency_s": 0.100, "accuracy": 0.95},
        {},
    ),
    "both are equally accurate": (
        IMAGE,
        {**FAST, "table": with_accuracy(0.9)},
        {"answered_by": SERVER, "latency_s": 0.090, "accuracy": 0.9},
        {},
    ),
    "for latency the first answer counts": (
        IMAGE,
        {**FAST, "demand": QUICKEST},
        {"answered_by": DEVICE, "latency_s": 0.035, "accuracy": 0.6, "utility": 0.65},
        {"worker_until_s": 0.035},
    ),
    "for latency the server's may be the first": (
        IMAGE,
        {"rate": 4e6, "rtt_s": 0.002, "demand": QUICKEST},
        {"answered_by": SERVER, "latency_s": 0.033, "accuracy": 0.9, "utility": 0.67, "fell_back": True},
        {"worker_until_s": 0.035},
    ),
    "below the floor it does not run": (
        IMAGE,
        {"demand": Demand(min_accuracy=0.65)},
        {"answered_by": MISS, "fell_back": False, "slow_down": 0.0},
        {"worker_until_s": 0.0},
    ),
    "behind another run": (
        IMAGE,
        {"rate": 0.0, "queues": queued(worker_until_s=0.075)},
        {"answered_by": DEVICE, "latency_s": 0.100, "waited_s": 0.0, "head_s": 0.010},
        {"device_free_s": 0.010, "worker_until_s": 0.100},
    ),
    "not begun if it cannot make the deadline": (
        IMAGE,
        {"rate": 0.0, "queues": queued(worker_until_s=0.0751)},
        {"answered_by": MISS, "fell_back": False, "slow_down": 0.0},
        {"device_free_s": 0.010, "worker_until_s": 0.0751},
    ),
    "not begun if it seems unable to": (
        IMAGE,
        {"rate": 0.0, "queues": queued(worker_until_s=0.060), "slow_belief": 1.7},
        {"answered_by": MISS, "fell_back": False},
        {"worker_until_s": 0.060},
    ),
    # The answer comes after 10 + 1 + 2 + 20 = 33 ms, and the worker is free after 40.
    "not begun if the answer comes before": (
        IMAGE,
        {"rate": 4e6, "rtt_s": 0.002, "queues": queued(worker_until_s=0.040)},
        {"answered_by": SERVER, "latency_s": 0.033, "fell_back": False, "slow_down": 0.0},
        {"worker_until_s": 0.040},
    ),
    "begun if the answer comes later": (
        IMAGE,
        {"rate": 4e6, "rtt_s": 0.002, "queues": queued(worker_until_s=0.032)},
        {"answered_by": SERVER, "latency_s": 0.033, "fell_back": True, "slow_down": 1.0},
        {"worker_until_s": 0.057},
    ),
    "a finish that falls due goes first": (
        IMAGE,
        {"rate": 0.0, "queues": queued(finish_from_s=0.020, finish_until_s=0.050)},
        {"answered_by": DEVICE, "latency_s": 0.100},
        {"worker_until_s": 0.065, "finish_from_s": 0.020, "finish_until_s": 0.050},
    ),
    # head 20, finish 30; the answer comes after 20 + 10 + 40 + 10 = 80 ms
    "a cut races its own finish": (
        CUT,
        {},
        {"answered_by": SERVER, "latency_s": 0.080, "accuracy": 0.8, "head_s": 0.020, "fell_back": True},
        {"device_free_s": 0.020, "worker_until_s": 0.050, "finish_until_s": 0.0},
    ),
    "a cut's head waits for the worker": (
        CUT,
        {"rate": 0.0, "queues": queued(worker_until_s=0.040)},
        {"answered_by": DEVICE, "latency_s": 0.100, "accuracy": 0.7, "waited_s": 0.040, "head_s": 0.020},
        {"device_free_s": 0.060, "worker_until_s": 0.090},
    ),
}


@pytest.mark.parametrize("case", RACES.values(), ids=RACES)
def test_one_race(case: tuple[int, dict[str, Any], dict[str, float], dict[str, float]]) -> None:
    point, settings, outcome, later = case
    queues, happened, (crossing,) = play(point, **{"table": RACING, **settings})
    assert {name: values(happened)[name] for name in outcome} == pytest.approx(outcome)
    assert {name: values(queues)[name] for name in later} == pytest.approx(later)
    assert crossing.due_s == np.inf  # nothing waits for its moment


def test_a_held_answer_is_in_time_whatever_the_rounding() -> None:
    for k in range(100):
        _, outcome, _ = play(IMAGE, arrival_s=k / 30, table=RACING, rate=0.0)
        assert (outcome.answered_by, outcome.latency_s) == (DEVICE, 0.1)


def test_whole_cnns_queue_and_are_dropped_when_hopeless() -> None:
    """Every 33 ms one of 50 ms. The foreground is free at once, so that the pictures between them are not late."""
    queues, by = queued(), []
    for k in range(8):
        queues, outcome, _ = play(LOCAL, arrival_s=k / 30, queues=queues, demand=Demand(deadline_s=0.105))
        by.append((int(outcome.answered_by[0]), round(float(outcome.waited_s[0]) * 1e3)))
        assert queues.device_free_s[0] <= k / 30
    assert by == [
        (DEVICE, 0), (DEVICE, 17), (DEVICE, 33), (DEVICE, 50), (MISS, 67), (DEVICE, 33), (DEVICE, 50), (MISS, 67),
    ]  # fmt: skip


WATTS = Machine(idle_w=3.0, busy_w=7.0, threads=4)
# point, settings -> seconds on all threads, seconds on one
ENERGY: dict[str, tuple[int, dict[str, Any], float, float]] = {
    "a race encodes and runs": (IMAGE, {}, 0.025, 0.010),
    "a slow device works longer": (IMAGE, {"slow": 1.5}, 0.0375, 0.015),
    "a race that is not begun only encodes": (IMAGE, {"queues": queued(worker_until_s=0.2)}, 0.0, 0.010),
    "a cut runs its head and its finish": (CUT, {}, 0.050, 0.0),
    "a whole CNN": (LOCAL, {}, 0.050, 0.0),
    "a dropped one": (LOCAL, {"queues": queued(worker_until_s=0.2)}, 0.0, 0.0),
    # The finish was counted with its own frame.
    "a head that a finish interrupts": (CUT, {"queues": queued(finish_from_s=0.01, finish_until_s=0.04)}, 0.050, 0.0),
}


@pytest.mark.parametrize("case", ENERGY.values(), ids=ENERGY)
def test_energy_of_the_device(case: tuple[int, dict[str, Any], float, float]) -> None:
    """Idle for 1/30 s in any case, 4 W more on four threads, and 1 W more on one."""
    point, settings, busy_s, light_s = case
    _, outcome, _ = play(point, table=replace(RACING, machine=WATTS), **settings)
    assert outcome.device_j == pytest.approx([3.0 / 30 + 4.0 * busy_s + 1.0 * light_s])


def test_jitter_is_the_points_own_and_scaled_by_the_world() -> None:
    table = replace(TABLE, jitter=np.array([0.0, 0.0, np.log(1.2)]))
    _, outcome, _ = play(LOCAL, table=table, compute_noise=1.0)
    assert (outcome.latency_s[0], outcome.slow_down[0]) == pytest.approx((0.060, 1.2))
    _, outcome, _ = play(CUT, table=table, compute_noise=1.0)
    assert outcome.slow_down[0] == 1.0


def test_a_hot_device_is_slow_by_heat_and_by_chance() -> None:
    """At 82.5 degrees the clock is half-way to its lowest: 1.25 times the time, by 1.1 of another cause."""

    world = replace(WORLD, cooling=Cooling())
    table = replace(TABLE, machine=WATTS)
    _, outcome, _ = play(LOCAL, world=world, table=table, queues=queued(heat_c=82.5), slow=1.1)
    assert (outcome.slow_down[0], outcome.heat_c[0]) == pytest.approx((1.375, 82.5))
    assert outcome.latency_s[0] == pytest.approx(0.050 * 1.375)
    assert outcome.device_j == pytest.approx([3.0 / 30 + 4.0 * 0.055])  # a slower clock draws fewer watts
