"""When the rule decides and when a frame runs on purpose, as tables of events; and the rule itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.runtime.deployed import points
from tidesplit.envs.world.observation import Observation, observe
from tidesplit.envs.world.physics import World
from tidesplit.envs.world.vocabulary import Demand, Demands
from tidesplit.runtime.choosing.device_situation import DeviceSituation
from tidesplit.runtime.choosing.safeguard import Safeguard, as_drawn, quickest, rule, undrawn
from tidesplit.runtime.wire.estimator import UNUSED

WORLD, TABLE = World(), points(4)[1]
OFFLOAD, CUT, LOCAL = 0, 1, 2
DEMAND = Demand(fps=20, deadline_s=0.25)


def situation(
    slow_down: float = 1.0, wait_s: float = 0.0, blocked: bool = False, heat_c: float = 50.0, worker_s: float = 0.0
) -> DeviceSituation:
    """A link that answered one message a moment ago."""
    rows = [(0.9, 0.97, 500.0, 0.004, 0.06, wait_s, np.inf, 0.0, 0.002)] + [UNUSED] * (WORLD.window - 1)
    return DeviceSituation(1.0, 0.0, (rows,), slow_down, -1, worker_s, heat_c, blocked)


def seen(now: DeviceSituation, demand: Demand = DEMAND) -> Observation:
    return observe(now.as_lane(), TABLE, Demands.of(demand), WORLD)


@pytest.mark.parametrize(
    ("now", "demand", "by_rule", "by_speed"),
    [
        (situation(), DEMAND, OFFLOAD, LOCAL),  # the most accurate one in time
        (situation(wait_s=5.0), DEMAND, LOCAL, LOCAL),  # the server is too busy
        (situation(blocked=True), DEMAND, LOCAL, LOCAL),
        (situation(slow_down=14.0), DEMAND, OFFLOAD, OFFLOAD),
        (situation(slow_down=14.0, blocked=True), DEMAND, LOCAL, LOCAL),  # nothing is in time, and nothing else allowed
        (situation(wait_s=5.0), replace(DEMAND, min_accuracy=0.8), OFFLOAD, OFFLOAD),
        (situation(), replace(DEMAND, objective="latency"), LOCAL, LOCAL),
        (situation(), replace(DEMAND, min_accuracy=1.0), OFFLOAD, LOCAL),  # no point is allowed: all are
    ],
)
def test_the_rule_takes_the_most_accurate_point_in_time(
    now: DeviceSituation, demand: Demand, by_rule: int, by_speed: int
) -> None:
    found = seen(now, demand)
    assert rule(found, demand, WORLD.guard_s) == by_rule
    assert quickest(found) == by_speed


@pytest.mark.parametrize(
    ("slow_down", "wait_s", "heat_c", "named"),
    [
        (1.0, 0.010, 50.0, {}),
        (1.6, 0.100, 85.0, {}),
        (4.0, 0.010, 50.0, {"slow_down": 4.0}),
        (0.1, 0.010, 50.0, {"slow_down": 0.1}),
        (1.0, 5.0, 50.0, {"server_wait_s": 5.0}),
        (1.0, 0.0, -20.0, {"heat_c": -20.0}),
        (9.0, 5.0, -20.0, {"slow_down": 9.0, "server_wait_s": 5.0, "heat_c": -20.0}),
    ],
)
def test_the_policy_sees_what_training_draws(
    slow_down: float, wait_s: float, heat_c: float, named: dict[str, float]
) -> None:
    believed = situation(slow_down, wait_s, heat_c=heat_c)
    given = as_drawn(believed, WORLD)
    assert (given is believed) is not named
    assert undrawn(seen(believed), seen(given)) == pytest.approx(named)
    assert 0.7 <= given.slow_down <= 2.0
    assert seen(given).seen.server_wait_s[0] <= 0.106


def test_of_two_points_that_promise_the_same_the_rule_takes_the_race() -> None:
    table = TABLE.take([OFFLOAD, OFFLOAD, LOCAL])
    table = replace(table, races=np.array([False, True, False]))
    assert rule(observe(situation().as_lane(), table, Demands.of(DEMAND), WORLD), DEMAND, WORLD.guard_s) == 1


def test_one_frame_runs_on_purpose_after_three_drops() -> None:
    guard, taken = Safeguard(0.05), []
    for _ in range(8):
        taken.append(guard.starved())
        (guard.ran if taken[-1] else guard.dropped)()
    assert taken == [False, False, False, True] * 2


def test_after_an_answer_to_such_a_frame_the_next_ones_run_too() -> None:
    """Until one of them is missed, or the policy's frames run again: it may drop a frame for a good reason."""
    guard = Safeguard(0.05)
    for missed, starved in ((False, True), (True, False), (False, True)):
        guard.ran(by_rule=True)
        guard.settled(0.1, 0.05, by_rule=True, missed=missed)
        assert guard.starved() is starved
    guard.ran()
    assert not guard.starved()


def missed_until_rule(guard: Safeguard, begin_s: float, period_s: float) -> int:
    """Frames of the policy that are missed until the rule decides."""
    for k in range(1, 100):
        at_s = begin_s + k * period_s
        if guard.rules(at_s):
            return k - 1
        guard.settled(at_s, at_s, by_rule=False, missed=True)
    raise AssertionError("the rule never decides")


@pytest.mark.parametrize(("fps", "misses"), [(100, 10), (30, 10), (20, 10), (10, 5), (1, 3)])
def test_the_rule_decides_after_misses_in_a_row(fps: float, misses: int) -> None:
    assert missed_until_rule(Safeguard(1.0 / fps), 0.0, 1.0 / fps) == misses


def test_an_answer_ends_the_row() -> None:
    guard = Safeguard(0.05)
    for k in range(100):
        guard.settled(0.05 * k, 0.05 * k, by_rule=False, missed=k % 10 != 0)
    assert not guard.rules(5.0)


def test_the_policy_gets_another_chance_after_a_second_and_then_after_longer() -> None:
    guard, begin_s = Safeguard(0.05), 0.0
    for rule_s in (1.0, 2.0, 4.0, 8.0, 16.0, 16.0):
        begin_s += 0.05 * missed_until_rule(guard, begin_s, 0.05)
        assert guard.rules(begin_s + rule_s - 0.01)
        begin_s += rule_s
        assert not guard.rules(begin_s + 0.01)
        guard.settled(begin_s, begin_s - 0.1, by_rule=False, missed=True)  # decided before: it does not count
    guard.settled(begin_s + 0.01, begin_s + 0.01, by_rule=False, missed=False)
    begin_s += 0.05 * missed_until_rule(guard, begin_s, 0.05)
    assert not guard.rules(begin_s + 1.01)


def test_where_the_rule_fails_as_well_the_policy_is_not_to_blame() -> None:
    guard, begin_s = Safeguard(0.05), 0.0
    for _ in range(4):
        begin_s += 0.05 * missed_until_rule(guard, begin_s, 0.05)
        guard.settled(begin_s + 0.1, begin_s + 0.1, by_rule=True, missed=True)
        assert not guard.rules(begin_s + 1.01)
        begin_s += 1.01
