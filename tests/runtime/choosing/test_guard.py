"""The guard: when a rule takes the policy's place, for how long, and by what it chooses."""

from __future__ import annotations

import numpy as np
import pytest

from tests.agents.small import BUMPY, scenario
from tidesplit.envs.simulation.simulation import Simulation
from tidesplit.runtime.choosing.guard import BELOW, REST_S, SENDS, TRIAL_S, TURN_S, Guard, alone, best_by_itself

FPS = 10.0
TURN, TRIAL, REST = (round(seconds * FPS) for seconds in (TURN_S, TRIAL_S, REST_S))


def settled(guard: Guard, lead: float, frames: int, *, sent: bool = True) -> int:
    """End so many frames with this lead, whoever decides. Returns how many of them the rule decided."""
    ruled = 0
    for _ in range(frames):
        by_guard = guard.rules()
        ruled += by_guard
        guard.settled(lead, sent, by_guard)
    return ruled


@pytest.fixture
def guard() -> Guard:
    return Guard(1.0 / FPS)


def test_who_is_as_good_as_the_device_alone_decides_for_ever(guard: Guard) -> None:
    assert settled(guard, -0.9 * BELOW, 1000) == 0


def test_who_loses_without_sending_is_not_the_links_victim(guard: Guard) -> None:
    assert settled(guard, -0.5, 1000, sent=False) == 0


def test_the_rule_takes_over_after_three_quarters_of_the_sends(guard: Guard) -> None:
    assert settled(guard, -0.2, 3 * SENDS // 4) == 0
    assert guard.rules()
    assert settled(guard, 0.1, TURN) == TURN
    assert not guard.rules()


def test_turns_double_while_the_rule_is_better_and_the_policy_is_tried_between_them(guard: Guard) -> None:
    settled(guard, -0.2, 3 * SENDS // 4)
    for factor in (1, 2, 4, 4):
        assert settled(guard, 0.1, factor * TURN) == factor * TURN
        assert settled(guard, -0.2, TRIAL) == 0
        assert guard.rules()


def test_a_policy_that_is_better_again_stays(guard: Guard) -> None:
    settled(guard, -0.2, 3 * SENDS // 4)
    settled(guard, 0.1, TURN)
    assert settled(guard, 0.2, 1000) == 0


def test_a_rule_that_is_no_better_rests_longer_each_time(guard: Guard) -> None:
    settled(guard, -0.2, 3 * SENDS // 4)
    rests = []
    for _ in range(3):
        assert settled(guard, -0.2, TURN) == TURN
        frames = 0
        while not guard.rules():
            guard.settled(-0.2, True, False)
            frames += 1
        rests.append(frames)
    assert rests == [REST, 2 * REST, 4 * REST]


def test_frames_of_the_others_turn_do_not_count(guard: Guard) -> None:
    for _ in range(1000):
        guard.settled(-1.0, True, True)
    assert not guard.rules()


@pytest.fixture
def played() -> Simulation:
    return Simulation(scenario(BUMPY, episode_s=2.0), [np.random.default_rng(0)])


def test_alone_is_worth_the_best_local_net_in_time(played: Simulation) -> None:
    observation = played.observation()
    foreseen = observation.foreseen
    own = [
        float(foreseen.accuracy[0, row] - foreseen.cost[0, row])
        for row in np.flatnonzero(observation.mask[0] & (foreseen.local[0] > 0.0))
        if foreseen.slack_s[0, row] >= 0.0
    ]
    assert alone(observation, np.flatnonzero(played.table.local).tolist()) == pytest.approx(max([0.0, *own]))


def test_the_rule_weighs_energy_at_its_price(played: Simulation) -> None:
    size = played.table.size
    means = np.stack([np.linspace(0.5, 0.9, size), np.linspace(0.0, 1.0, size), np.zeros(size)])
    assert best_by_itself(played.observation(), means)[0] == size - 1
    played.demands.joule_price[:] = 1.0
    assert best_by_itself(played.forked(np.arange(1)).observation(), means)[0] == 0
