"""LinUCB: what it believes before and after answers, and that it never hears one before it has come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.bandit import FEATURES, KILOBYTE, SERVER_S, Bandit, LinUcb, features
from agents.evaluation import simulation_of
from envs.simulation import Scenario, Simulation
from envs.world import World
from tests.agents.small import scenario, steps
from tests.envs.small import BYTES_PER_S, CUT, IMAGE, LOCAL, TABLE

# Nothing by chance: messages take bytes at 100 a ms, 40 ms of RTT, and the server's time.
SURE = replace(
    World(), rtt_s=0.040, rtt_jitter=0.0, calm_wait_s=0.0, busy_wait_s=0.0, throttled_slowdown=1.0, compute_jitter=0.0
)
KNOBS = LinUcb(name="LinUCB", usual_rate=BYTES_PER_S)
ALL = features(np.array([[4000.0, 1000.0]]), np.array([[0.020, 0.010]]))
TRUTH = [0.040 + 0.040 + 0.020, 0.010 + 0.040 + 0.010]


def world(mbps: float, seconds: float = 6.0, **options: float) -> Scenario:
    trace = steps("flat", [mbps] * round(seconds * 10))
    return replace(scenario(trace, fps=5, deadline_ms=200.0, **options), table=TABLE, world=SURE)


def played(knobs: LinUcb, simulation: Simulation, points: list[int]) -> Bandit:
    """The bandit after these points were chosen for it."""
    bandit = knobs(simulation)
    for point in points:
        bandit.predict(simulation.observation())
        simulation.step(np.full(simulation.lanes, point))
    bandit.predict(simulation.observation())
    return bandit


def test_features_by_hand() -> None:
    told = features(np.array([[2 * KILOBYTE]]), np.array([[3 * SERVER_S]]))
    assert told.tolist() == [[[1.0, 2.0, 3.0]]]
    assert told.shape == (1, 1, FEATURES)


def test_before_any_answer_it_believes_the_tables() -> None:
    bandit = KNOBS(simulation_of(world(0.1), seed=0))
    delay, width = bandit.delays(ALL)
    assert delay[0] == pytest.approx(TRUTH)
    assert width[0] == pytest.approx(np.linalg.norm(ALL[0], axis=1) / np.sqrt(KNOBS.ridge))


def test_it_learns_the_delays_of_a_link_it_was_not_told_of() -> None:
    simulation = simulation_of(world(BYTES_PER_S * 8.0 / 1e6), seed=0)
    wrong = replace(KNOBS, usual_rate=10 * BYTES_PER_S, memory=1.0, ridge=1e-6)
    bandit = played(wrong, simulation, [IMAGE, CUT] * 10)
    delay, width = bandit.delays(ALL)
    assert delay[0] == pytest.approx(TRUTH, abs=1e-3)
    assert (width < 0.5).all()  # from 1,000 and more


def test_one_answer_by_hand() -> None:
    """The ridge of one message: weights move along its features by what it missed, over ridge and their square."""
    simulation = simulation_of(world(BYTES_PER_S * 8.0 / 1e6), seed=0)
    bandit = played(replace(KNOBS, usual_rate=2 * BYTES_PER_S, memory=1.0), simulation, [CUT])
    x = ALL[0, 1]
    missed = TRUTH[1] - (0.040 + 0.005 + 0.010)
    payload = simulation.transfers.payload[0, 0]
    assert payload == 1000.0
    expected = np.array([0.040, 0.005, 0.010]) + x * missed / (KNOBS.ridge + x @ x)
    assert bandit.delays(ALL)[0][0] == pytest.approx(ALL[0] @ expected, rel=1e-6)


def test_the_past_fades() -> None:
    """After a change of the link, the forgetful one is nearer to the truth."""
    changed = replace(world(1.0), traces=(steps("worse", [8.0] * 30 + [BYTES_PER_S * 8.0 / 1e6] * 30),))
    missed = []
    for memory in (1.0, 0.8):
        bandit = played(replace(KNOBS, memory=memory), simulation_of(changed, seed=0), [IMAGE, CUT] * 14)
        missed.append(np.abs(bandit.delays(ALL)[0][0] - TRUTH).max())
    assert missed[1] < missed[0] / 2


@pytest.mark.parametrize(
    ("alpha", "deadline_ms", "chosen"),
    [
        (0.0, 200.0, IMAGE),
        (0.0, 100.0, CUT),  # the image: 10 + 40 + 40 + 20 = 110 ms
        (0.0, 70.0, LOCAL),  # the cut: 80
        (1.0, 100.0, IMAGE),  # optimistic enough, everything is worth a try
        (1.0, 5.0, IMAGE),  # nothing fits: the quickest, were the network for free
    ],
)
def test_choices_before_any_answer(alpha: float, deadline_ms: float, chosen: int) -> None:
    asked = replace(scenario(steps("flat", [1.0]), fps=5, deadline_ms=deadline_ms), table=TABLE, world=SURE)
    simulation = simulation_of(asked, seed=0)
    bandit = replace(KNOBS, alpha=alpha)(simulation)
    assert bandit.predict(simulation.observation()).tolist() == [chosen]


def test_no_answer_is_heard_before_it_has_come() -> None:
    """Two links that part after a second: decisions are the same until an answer could tell."""
    futures = [[2.0] * 10 + [after] * 10 for after in (0.05, 16.0)]
    chosen: list[list[int]] = []
    for mbps in futures:
        simulation = simulation_of(scenario(steps("t", mbps)), seed=0)
        bandit = replace(KNOBS, alpha=0.0)(simulation)
        decisions: list[int] = []
        for _ in range(60):
            points = bandit.predict(simulation.observation())
            if simulation.situation().now_s[0] <= 1.0:
                decisions.append(int(points[0]))
            simulation.step(points)
        chosen.append(decisions)
    assert len(chosen[0]) > 10
    assert chosen[0] == chosen[1]


def test_a_new_episode_begins_with_nothing_heard() -> None:
    simulation = simulation_of(world(0.1), seed=0, trace_of=[0, 0])
    bandit = played(KNOBS, simulation, [CUT] * 12)
    learned = bandit.delays(np.repeat(ALL, 2, axis=0))[0]
    simulation.reset(np.array([1]))
    bandit.predict(simulation.observation())
    delay = bandit.delays(np.repeat(ALL, 2, axis=0))[0]
    assert delay[1] == pytest.approx(TRUTH)
    assert delay[0] == pytest.approx(learned[0])
    assert learned[1] != pytest.approx(TRUTH, abs=0.01)
