"""LinUCB: what it believes before and after answers, and that it never hears one before it has come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.agents.small import scenario, steps
from tests.envs.small import BYTES_PER_S, CUT, IMAGE, LOCAL, TABLE
from tidesplit.agents.judging.evaluation import simulation_of
from tidesplit.agents.rules.linucb import FEATURES, KILOBYTE, PART_S, Bandit, LinUcb, features
from tidesplit.envs.simulation.simulation import Scenario, Simulation
from tidesplit.envs.world.heat import NO_HEAT
from tidesplit.envs.world.physics import World

# Nothing by chance: messages take bytes at 100 a ms, 40 ms of RTT, and the server's time.
SURE = replace(
    World(),
    rtt_s=0.040,
    request_s=0.0,
    cold=1.0,
    picture_s=0.0,
    rtt_jitter=0.0,
    calm_wait_s=0.0,
    busy_wait_s=0.0,
    jitter=0.0,
    cooling=NO_HEAT,
)
KNOBS = LinUcb(name="LinUCB", usual_rate=BYTES_PER_S)
ALL = features(np.array([[4000.0, 1000.0]]), np.full((1, 2), BYTES_PER_S), np.array([[0.020, 0.010]]))
TRUTH = [0.040 + 0.040 + 0.020, 0.010 + 0.040 + 0.010]


def world(*rtt_s: float, deadline_ms: float = 200.0) -> Scenario:
    """A link of 100 bytes a ms, five frames a second; its RTT, unknown to the tables, changes every three seconds."""
    rtts = np.repeat(rtt_s, 30)
    trace = replace(steps("flat", [BYTES_PER_S * 8.0 / 1e6] * len(rtts)), rtt_s=rtts)
    return replace(scenario(trace, fps=5, deadline_ms=deadline_ms), table=TABLE, world=SURE)


def played(knobs: LinUcb, simulation: Simulation, points: list[int]) -> Bandit:
    """The bandit after these points were chosen for it."""
    bandit = knobs(simulation)
    for point in points:
        bandit.predict(simulation.observation())
        simulation.step(np.full(simulation.lanes, point))
    bandit.predict(simulation.observation())
    return bandit


def test_features_by_hand() -> None:
    told = features(np.array([[2 * KILOBYTE]]), np.array([[KILOBYTE / PART_S]]), np.array([[3 * PART_S]]))
    assert told.tolist() == [[[1.0, 2.0, 2.0, 3.0]]]
    assert told.shape == (1, 1, FEATURES)


def test_before_any_answer_it_believes_the_tables() -> None:
    bandit = KNOBS(simulation_of(world(0.090), seed=0))
    delay, width = bandit.delays(ALL)
    assert delay[0] == pytest.approx(TRUTH)
    assert width[0] == pytest.approx(np.linalg.norm(ALL[0], axis=1) / np.sqrt(KNOBS.ridge))


def test_it_learns_a_delay_that_the_tables_do_not_know() -> None:
    simulation = simulation_of(world(0.090, 0.090), seed=0)
    bandit = played(replace(KNOBS, memory=1.0, ridge=1e-6), simulation, [IMAGE, CUT] * 10)
    delay, width = bandit.delays(ALL)
    assert delay[0] == pytest.approx(np.array(TRUTH) + 0.050, abs=1e-3)
    assert (width < 1.0).all()  # from 1,000 and more


def test_one_answer_by_hand() -> None:
    """The ridge of one message: weights move along its features by what it missed, over ridge and their square."""
    simulation = simulation_of(world(0.070), seed=0)
    bandit = played(replace(KNOBS, memory=1.0), simulation, [CUT])
    x, prior, missed = ALL[0, 1], np.array([0.040, 0.0, PART_S, PART_S]), 0.030
    assert simulation.links[0].transfers.payload[0, 0] == 1000.0
    expected = prior + x * missed / (KNOBS.ridge + x @ x)
    assert bandit.delays(ALL)[0][0] == pytest.approx(ALL[0] @ expected, rel=1e-6)


def test_a_message_is_remembered_with_what_was_believed_as_it_was_chosen() -> None:
    simulation = simulation_of(world(0.040), seed=0)
    bandit = played(replace(KNOBS, usual_rate=3 * BYTES_PER_S), simulation, [CUT, LOCAL, LOCAL, LOCAL, IMAGE])
    believed = bandit._chosen_at[0, :3].tolist()
    assert simulation.links[0].transfers.payload[0, :3].tolist() == [4000.0, SURE.probe_bytes, 1000.0]
    assert believed == pytest.approx([BYTES_PER_S, BYTES_PER_S, 3 * BYTES_PER_S])


def test_the_past_fades() -> None:
    """After a change of the link, the forgetful one is nearer to the truth."""
    missed = []
    for memory in (1.0, 0.8):
        simulation = simulation_of(world(0.140, 0.040), seed=0)
        bandit = played(replace(KNOBS, memory=memory), simulation, [IMAGE, CUT] * 14)
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
    simulation = simulation_of(world(0.040, deadline_ms=deadline_ms), seed=0)
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
    simulation = simulation_of(world(0.090), seed=0, trace_of=[0, 0])
    bandit = played(KNOBS, simulation, [CUT] * 12)
    learned = bandit.delays(np.repeat(ALL, 2, axis=0))[0]
    simulation.reset(np.array([1]))
    bandit.predict(simulation.observation())
    delay = bandit.delays(np.repeat(ALL, 2, axis=0))[0]
    assert delay[1] == pytest.approx(TRUTH)
    assert delay[0] == pytest.approx(learned[0])
    assert learned[1] != pytest.approx(TRUTH, abs=0.01)
